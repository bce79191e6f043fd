# SPDX-License-Identifier: GPL-2.0-or-later
"""
Mark small areas of a running Linux kernel's memory, so that a dead machine answers.

The public API, in the order of its use:

>>> from kmemdump import capture, open_target
>>> with open_target("qmp:/run/vm.qmp") as vm:
...     capture(vm).save("vm.core")

What is not named here may change without notice. Names are imported when they are
first used: drgn is not loaded for those that do not need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kmemdump.arch.find_kernel import find_vmcoreinfo
    from kmemdump.areas import AREAS, choose_areas
    from kmemdump.areas.area import Area, area
    from kmemdump.backends import Backend
    from kmemdump.backends.minidump import MinidumpBackend
    from kmemdump.backends.vm import VmBackend
    from kmemdump.coreimage import CoreImage, read_core, verify
    from kmemdump.errors import (
        BackendError,
        BudgetExceededError,
        ExitCode,
        FormatError,
        KmemdumpError,
        NotCapturedError,
        RegistrationError,
        TargetError,
        UnsupportedError,
        UsageError,
    )
    from kmemdump.firmware.smem_search import find_smem
    from kmemdump.kernel.attach import Kernel, attach
    from kmemdump.kernel.printk import read_log
    from kmemdump.marking.capture import Capture, capture
    from kmemdump.marking.mark import Marking, mark
    from kmemdump.marking.plan import Plan, PlannedArea
    from kmemdump.marking.registration import RefreshResult, Registration
    from kmemdump.marking.registry import Registry
    from kmemdump.memory.physical import Memory
    from kmemdump.memory.ranges import Range, Region, fit
    from kmemdump.memory.recorder import Budget, Recorder
    from kmemdump.opening import open_target
    from kmemdump.questions.crash_commands import command
    from kmemdump.questions.python_files import load_questions
    from kmemdump.questions.question import Question, answer, function
    from kmemdump.report import Report, gather
    from kmemdump.targets import Target
    from kmemdump.targets.writable import open_writable
    from kmemdump.vmcoreinfo import VmcoreInfo

_HOMES = {
    "areas": ("AREAS", "choose_areas"),
    "areas.area": ("Area", "area"),
    "backends": ("Backend",),
    "backends.minidump": ("MinidumpBackend",),
    "firmware.smem_search": ("find_smem",),
    "backends.vm": ("VmBackend",),
    "marking.capture": ("Capture", "capture"),
    "coreimage": ("CoreImage", "read_core", "verify"),
    "errors": (
        "BackendError",
        "BudgetExceededError",
        "ExitCode",
        "FormatError",
        "KmemdumpError",
        "NotCapturedError",
        "RegistrationError",
        "TargetError",
        "UnsupportedError",
        "UsageError",
    ),
    "kernel.attach": ("Kernel", "attach"),
    "arch.find_kernel": ("find_vmcoreinfo",),
    "kernel.printk": ("read_log",),
    "marking.registration": ("RefreshResult", "Registration"),
    "marking.mark": ("Marking", "mark"),
    "memory.physical": ("Memory",),
    "marking.plan": ("Plan", "PlannedArea"),
    "questions.crash_commands": ("command",),
    "questions.python_files": ("load_questions",),
    "questions.question": ("Question", "answer", "function"),
    "memory.recorder": ("Budget", "Recorder"),
    "memory.ranges": ("Range", "Region", "fit"),
    "marking.registry": ("Registry",),
    "report": ("Report", "gather"),
    "opening": ("open_target",),
    "targets": ("Target",),
    "targets.writable": ("open_writable",),
    "vmcoreinfo": ("VmcoreInfo",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AREAS",
    "Area",
    "Backend",
    "BackendError",
    "Budget",
    "BudgetExceededError",
    "Capture",
    "CoreImage",
    "ExitCode",
    "FormatError",
    "Kernel",
    "KmemdumpError",
    "Marking",
    "Memory",
    "MinidumpBackend",
    "NotCapturedError",
    "Plan",
    "PlannedArea",
    "Question",
    "Range",
    "Recorder",
    "RefreshResult",
    "Region",
    "Registration",
    "RegistrationError",
    "Registry",
    "Report",
    "Target",
    "TargetError",
    "UnsupportedError",
    "UsageError",
    "VmBackend",
    "VmcoreInfo",
    "answer",
    "area",
    "attach",
    "capture",
    "choose_areas",
    "command",
    "find_smem",
    "find_vmcoreinfo",
    "fit",
    "function",
    "gather",
    "load_questions",
    "mark",
    "open_target",
    "open_writable",
    "read_core",
    "read_log",
    "verify",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
