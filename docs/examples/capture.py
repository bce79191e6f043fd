# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture a VM, and ask its core image."""

from kmemdump import Selection, attach, choose_areas, look, open_target, write

target = open_target("qmp:vm.qmp")
capture = look(target, Selection(choose_areas()))
missing = write("vm.core", target, capture)
target.close()
complete = "all complete" if capture.marking.complete and not missing else "incomplete"
print(f"{len(capture.marking.areas)} areas, {complete}")

core = open_target("vm.core")
kernel = attach(core)
print(kernel.vmcoreinfo.osrelease)
init = kernel.prog["init_pid_ns"].child_reaper  # prog is a drgn.Program.
print(init.pid.value_(), init.comm.string_().decode())
core.close()
