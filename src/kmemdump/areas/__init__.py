# SPDX-License-Identifier: GPL-2.0-or-later
"""The areas that can be marked, with one file for each kernel subsystem."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kmemdump.areas.area import Area
from kmemdump.areas.coreinfo import COREINFO
from kmemdump.areas.crash import CRASH
from kmemdump.areas.irq import IRQ
from kmemdump.areas.kmsg import KMSG
from kmemdump.areas.memory import MEMORY
from kmemdump.areas.modules import MODULES
from kmemdump.areas.newcomers import FREE_PAGES, NEW_TASKS
from kmemdump.areas.panic import PANIC
from kmemdump.areas.sched import SCHED
from kmemdump.areas.simple import DEVICES, IPC, KERNEL, MOUNTS, NET, SYMBOLS, TIMERS
from kmemdump.areas.stacks import ALL_STACKS, STACKS
from kmemdump.areas.tasks import TASKS
from kmemdump.errors import UsageError
from kmemdump.questions.parse import load_module

__all__ = ["AREAS", "Area", "choose_areas", "load_areas"]

AREAS: tuple[Area, ...] = (
    COREINFO,
    KMSG,
    PANIC,
    KERNEL,
    SCHED,
    STACKS,
    TASKS,
    NEW_TASKS,
    IRQ,
    MODULES,
    TIMERS,
    MEMORY,
    MOUNTS,
    DEVICES,
    NET,
    IPC,
    SYMBOLS,
    CRASH,
    ALL_STACKS,
    FREE_PAGES,
)
"""All areas, the most important first."""


def choose_areas(
    wanted: Iterable[str | Area] = (), *, early: bool = False
) -> list[Area]:
    """
    Return the areas that are wanted, or the default ones.

    ``coreinfo`` is always among them, since all others need it.

    :param wanted: Names, instead of the default ones; ``+NAME`` adds an area to them,
        ``-NAME`` leaves one out, and ``FILE.py`` adds the areas in that file, see
        :func:`load_areas`. An :class:`Area` is used unchanged.
    :param early: Whether the dump has only what was marked before, see :class:`Area`.
    :raises UsageError: If there is no such area.
    """
    by_name = {area.name: area for area in AREAS}
    files: list[str] = []
    names: list[str] = []
    for item in wanted:
        if isinstance(item, Area):
            _add(by_name, item, "an area of one's own")
            names.append(item.name)
        elif item.endswith(".py"):
            files.append(item)
        elif _without_sign(item) in by_name:
            names.append(item)
        else:
            raise UsageError(
                f"no area {item!r}; there are {', '.join(by_name)}, and FILE.py"
            )
    without = {name[1:] for name in names if name.startswith("-")}
    named = [name for name in names if name == _without_sign(name)]
    chosen = named or [
        area.name for area in AREAS if area.default and (early or not area.early)
    ]
    chosen += [name[1:] for name in names if name.startswith("+")]
    if COREINFO.name not in chosen:
        chosen.insert(0, COREINFO.name)
    found = [by_name[name] for name in dict.fromkeys(chosen) if name not in without]
    for file in dict.fromkeys(files):
        for own in load_areas(Path(file)):
            _add(by_name, own, file)
            found.append(own)
    return found


def _without_sign(name: str) -> str:
    return name[1:] if name.startswith(("+", "-")) else name


def _add(by_name: dict[str, Area], area: Area, source: str) -> None:
    if by_name.setdefault(area.name, area) is not area:
        raise UsageError(
            f"{source}: there is an area {area.name!r} already, expected another name"
        )


def load_areas(path: Path) -> list[Area]:
    """
    Load areas from a Python file that a user named.

    The areas are the file's global variables of type :class:`Area`.

    :raises UsageError: If the file cannot be run, or has no areas.
    """
    values = vars(load_module(path)).values()
    found = [value for value in values if isinstance(value, Area)]
    if not found:
        raise UsageError(f"{path}: no area; expected NAME = kmemdump.area(…)")
    return found
