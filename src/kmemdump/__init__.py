# SPDX-License-Identifier: GPL-2.0-or-later
"""
Mark small areas of a running Linux kernel's memory, so that a dead machine answers.

The public API, in the order of its use:

>>> from kmemdump import capture, open_core, open_target
>>> with open_target("qmp:/run/vm.qmp") as vm:
...     capture(vm).save("vm.core")
>>> with open_core("vm.core") as core:
...     print(core.report())

What is not named here may change without notice. Names are imported when they are
first used: drgn is not loaded for those that do not need it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kmemdump.areas import AREAS
    from kmemdump.areas.area import Area, area
    from kmemdump.backends import Backend
    from kmemdump.backends.vm import VmBackend
    from kmemdump.core import Core, open_core
    from kmemdump.coreimage import Manifest
    from kmemdump.errors import (
        BackendError,
        BudgetExceededError,
        ExitCode,
        FormatError,
        KmemdumpError,
        NotCapturedError,
        QuestionError,
        RegistrationError,
        TargetError,
        UnsupportedError,
        UsageError,
    )
    from kmemdump.formats.kinfo import KinfoLayout
    from kmemdump.kernel.attach import Kernel, attach
    from kmemdump.kernel.printk import read_log
    from kmemdump.marking.capture import Capture, capture
    from kmemdump.marking.firmware import mark_firmware, unmark_firmware
    from kmemdump.marking.firmware_table import TableOptions
    from kmemdump.marking.kinfo import (
        KinfoOptions,
        KinfoResult,
        mark_kinfo,
        unmark_kinfo,
    )
    from kmemdump.marking.mark import AreaResult, Marking, QuestionResult
    from kmemdump.marking.plan import Plan, PlannedArea
    from kmemdump.marking.registration import RefreshResult, Registration
    from kmemdump.marking.registry import Refusal, Registry, UpdateResult
    from kmemdump.memory.physical import Memory
    from kmemdump.memory.ranges import Range, Region, fit
    from kmemdump.memory.recorder import Budget
    from kmemdump.opening import open_target
    from kmemdump.questions.crash_commands import command
    from kmemdump.questions.question import Question, function
    from kmemdump.report import Report
    from kmemdump.targets import Target
    from kmemdump.vmcoreinfo import VmcoreInfo

_HOMES = {
    "areas": ("AREAS",),
    "areas.area": (
        "Area",
        "area",
    ),
    "backends": ("Backend",),
    "backends.vm": ("VmBackend",),
    "core": (
        "Core",
        "open_core",
    ),
    "coreimage": ("Manifest",),
    "errors": (
        "BackendError",
        "BudgetExceededError",
        "ExitCode",
        "FormatError",
        "KmemdumpError",
        "NotCapturedError",
        "QuestionError",
        "RegistrationError",
        "TargetError",
        "UnsupportedError",
        "UsageError",
    ),
    "formats.kinfo": ("KinfoLayout",),
    "kernel.attach": (
        "Kernel",
        "attach",
    ),
    "kernel.printk": ("read_log",),
    "marking.capture": (
        "Capture",
        "capture",
    ),
    "marking.firmware": (
        "mark_firmware",
        "unmark_firmware",
    ),
    "marking.firmware_table": ("TableOptions",),
    "marking.kinfo": (
        "KinfoOptions",
        "KinfoResult",
        "mark_kinfo",
        "unmark_kinfo",
    ),
    "marking.mark": (
        "AreaResult",
        "Marking",
        "QuestionResult",
    ),
    "marking.plan": (
        "Plan",
        "PlannedArea",
    ),
    "marking.registration": (
        "RefreshResult",
        "Registration",
    ),
    "marking.registry": (
        "Refusal",
        "Registry",
        "UpdateResult",
    ),
    "memory.physical": ("Memory",),
    "memory.ranges": (
        "Range",
        "Region",
        "fit",
    ),
    "memory.recorder": ("Budget",),
    "opening": ("open_target",),
    "questions.crash_commands": ("command",),
    "questions.question": (
        "Question",
        "function",
    ),
    "report": ("Report",),
    "targets": ("Target",),
    "vmcoreinfo": ("VmcoreInfo",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AREAS",
    "Area",
    "AreaResult",
    "Backend",
    "BackendError",
    "Budget",
    "BudgetExceededError",
    "Capture",
    "Core",
    "ExitCode",
    "FormatError",
    "Kernel",
    "KinfoLayout",
    "KinfoOptions",
    "KinfoResult",
    "KmemdumpError",
    "Manifest",
    "Marking",
    "Memory",
    "NotCapturedError",
    "Plan",
    "PlannedArea",
    "Question",
    "QuestionError",
    "QuestionResult",
    "Range",
    "RefreshResult",
    "Refusal",
    "Region",
    "Registration",
    "RegistrationError",
    "Registry",
    "Report",
    "TableOptions",
    "Target",
    "TargetError",
    "UnsupportedError",
    "UpdateResult",
    "UsageError",
    "VmBackend",
    "VmcoreInfo",
    "area",
    "attach",
    "capture",
    "command",
    "fit",
    "function",
    "mark_firmware",
    "mark_kinfo",
    "open_core",
    "open_target",
    "read_log",
    "unmark_firmware",
    "unmark_kinfo",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
