# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture some areas, say what is missing, and use drgn on the core image."""

from kmemdump import capture, open_core, open_target

with open_target("qmp:vm.qmp") as vm:
    captured = capture(vm, areas=["tasks", "kmsg", "symbols"], questions=["files 1"])
    missing = captured.save("vm.core")
for area in captured.marking.areas:
    print(area.name, area.reason or "complete")
for item in missing:
    print(f"memory at {item} is missing")

with open_core("vm.core") as core:
    init = core.prog["init_pid_ns"].child_reaper  # core.prog is a drgn.Program.
    print(init.pid.value_(), init.comm.string_().decode())
