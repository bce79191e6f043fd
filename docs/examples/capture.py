# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture a VM, and ask its core image."""

from kmemdump import attach, capture, open_target

with open_target("qmp:vm.qmp") as vm:
    captured = capture(vm)
    missing = captured.save("vm.core")
complete = "all complete" if captured.complete and not missing else "incomplete"
print(f"{len(captured.marking.areas)} areas, {complete}")

with open_target("vm.core") as core:
    kernel = attach(core)
    print(kernel.vmcoreinfo.osrelease)
    init = kernel.prog["init_pid_ns"].child_reaper  # prog is a drgn.Program.
    print(init.pid.value_(), init.comm.string_().decode())
