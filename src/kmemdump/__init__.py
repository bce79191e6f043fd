# SPDX-License-Identifier: GPL-2.0-or-later
"""
Mark small areas of a running Linux kernel's memory, so that a dead machine answers.

The public API, in the order of its use:

>>> from kmemdump import capture, open_core, open_target
>>> with open_target("qmp:/run/vm.qmp") as vm:
...     capture(vm).save("vm.core")
>>> with open_core("vm.core") as core:
...     print(core.report())

Anything not listed here may change without notice. Names are imported on first use, so
that drgn is loaded only where it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kmemdump.areas import AREAS as AREAS
    from kmemdump.areas.area import Area as Area
    from kmemdump.areas.area import area as area
    from kmemdump.backends import Backend as Backend
    from kmemdump.backends.vm import VmBackend as VmBackend
    from kmemdump.bounded import run_bounded as run_bounded
    from kmemdump.bounds.steps import Limits as Limits
    from kmemdump.core import Core as Core
    from kmemdump.core import open_core as open_core
    from kmemdump.coreimage import Manifest as Manifest
    from kmemdump.errors import BackendError as BackendError
    from kmemdump.errors import BudgetExceededError as BudgetExceededError
    from kmemdump.errors import ExitCode as ExitCode
    from kmemdump.errors import FormatError as FormatError
    from kmemdump.errors import KmemdumpError as KmemdumpError
    from kmemdump.errors import NotCapturedError as NotCapturedError
    from kmemdump.errors import QuestionError as QuestionError
    from kmemdump.errors import RegistrationError as RegistrationError
    from kmemdump.errors import TargetError as TargetError
    from kmemdump.errors import UnsupportedError as UnsupportedError
    from kmemdump.errors import UsageError as UsageError
    from kmemdump.formats.kinfo import KinfoLayout as KinfoLayout
    from kmemdump.kernel.attach import Kernel as Kernel
    from kmemdump.kernel.attach import attach as attach
    from kmemdump.kernel.printk import read_log as read_log
    from kmemdump.marking.capture import Capture as Capture
    from kmemdump.marking.capture import capture as capture
    from kmemdump.marking.firmware_table import TableOptions as TableOptions
    from kmemdump.marking.kinfo import KinfoOptions as KinfoOptions
    from kmemdump.marking.kinfo import KinfoResult as KinfoResult
    from kmemdump.marking.kinfo import mark_kinfo as mark_kinfo
    from kmemdump.marking.kinfo import unmark_kinfo as unmark_kinfo
    from kmemdump.marking.mark import AreaResult as AreaResult
    from kmemdump.marking.mark import Marking as Marking
    from kmemdump.marking.mark import QuestionResult as QuestionResult
    from kmemdump.marking.plan import Plan as Plan
    from kmemdump.marking.plan import PlannedArea as PlannedArea
    from kmemdump.marking.registration import RefreshResult as RefreshResult
    from kmemdump.marking.registration import Registration as Registration
    from kmemdump.marking.registration import mark_firmware as mark_firmware
    from kmemdump.marking.registration import unmark_firmware as unmark_firmware
    from kmemdump.marking.registry import Refusal as Refusal
    from kmemdump.marking.registry import Registry as Registry
    from kmemdump.marking.registry import UpdateResult as UpdateResult
    from kmemdump.memory.physical import Memory as Memory
    from kmemdump.memory.ranges import Range as Range
    from kmemdump.memory.ranges import Region as Region
    from kmemdump.memory.ranges import fit as fit
    from kmemdump.memory.reading import Budget as Budget
    from kmemdump.opening import open_target as open_target
    from kmemdump.questions.crash_commands import command as command
    from kmemdump.questions.objects import each as each
    from kmemdump.questions.question import Question as Question
    from kmemdump.questions.question import function as function
    from kmemdump.report.report import Report as Report
    from kmemdump.targets import Target as Target
    from kmemdump.vmcoreinfo import VmcoreInfo as VmcoreInfo

_HOMES = {
    "areas": "AREAS",
    "areas.area": "Area area",
    "backends": "Backend",
    "backends.vm": "VmBackend",
    "bounded": "run_bounded",
    "bounds.steps": "Limits",
    "core": "Core open_core",
    "coreimage": "Manifest",
    "errors": (
        "BackendError BudgetExceededError ExitCode FormatError KmemdumpError "
        "NotCapturedError QuestionError RegistrationError TargetError "
        "UnsupportedError UsageError"
    ),
    "formats.kinfo": "KinfoLayout",
    "kernel.attach": "Kernel attach",
    "kernel.printk": "read_log",
    "marking.capture": "Capture capture",
    "marking.firmware_table": "TableOptions",
    "marking.kinfo": "KinfoOptions KinfoResult mark_kinfo unmark_kinfo",
    "marking.mark": "AreaResult Marking QuestionResult",
    "marking.plan": "Plan PlannedArea",
    "marking.registration": "RefreshResult Registration mark_firmware unmark_firmware",
    "marking.registry": "Refusal Registry UpdateResult",
    "memory.physical": "Memory",
    "memory.ranges": "Range Region fit",
    "memory.reading": "Budget",
    "opening": "open_target",
    "questions.crash_commands": "command",
    "questions.objects": "each",
    "questions.question": "Question function",
    "report.report": "Report",
    "targets": "Target",
    "vmcoreinfo": "VmcoreInfo",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
