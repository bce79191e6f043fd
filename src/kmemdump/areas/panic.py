# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the kernel died: taints, panic and oops state, command line."""

from drgn import Program

from kmemdump.areas.area import area, read_bytes

__all__ = ["PANIC"]


def command_line(prog: Program) -> None:
    """The kernel's command line."""
    print(prog["saved_command_line"].string_().decode("utf-8", "replace"))


def crashed_task(prog: Program) -> None:
    """The task that panicked, whole, if there is one."""
    try:
        task = prog.crashed_thread().object
    except (LookupError, ValueError):
        return  # Alive, or dead without a panic.
    read_bytes(prog, task.value_(), task.type_.type.size, 1 << 16)


PANIC = area(
    "panic",
    "taints, panic and oops state, command line",
    command_line,
    crashed_task,
    variables=(
        "tainted_mask",
        "taint_flags",
        "panic_cpu",
        "crashing_cpu",
        "oops_in_progress",
        "panic_on_oops",
        "panic_timeout",
        "die_counter",
        "saved_command_line",
    ),
)
