# SPDX-License-Identifier: GPL-2.0-or-later
"""
The copier's settings, and the file that keeps them: ``/etc/kmemdump/kdump.conf``.

The copier reads the same lines, in a crash kernel of its own or in a distribution's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kmemdump.crash_kernel.places import find_copies, parse_place
from kmemdump.errors import KmemdumpError, OutputError, TargetError, UsageError
from kmemdump.files import PartialFile
from kmemdump.memory.ranges import Range

__all__ = ["SETTINGS", "CopierSettings", "find_copy", "write_settings"]

SETTINGS = "etc/kmemdump/kdump.conf"

_MAX_PLACES = 8  # As MAX_TO of kdump/main.c.
_MAX_TEXT = 8191
"""Most bytes of the settings; kdump/main.c reads no more."""
_MAX_LINE = 200
_WORD = re.compile(r"#[^\n]*|[^ \t\n]+")
"""A setting, or a remark, which starts where a setting could."""


@dataclass(frozen=True, slots=True)
class CopierSettings:
    """What the copier does."""

    to: tuple[str, ...]
    """
    Where the core image is written; the next one if the one before fails:
    ``file:FOLDER@FSTYPE:DEVICE``, ``raw:DEVICE``, ``memory:ADDRESS:SIZE`` or
    ``console:DEVICE``. A device is a path, ``PARTLABEL=…`` or ``PARTUUID=…``.
    """
    then: str = "reboot"
    """``reboot``, ``poweroff`` or ``halt``, also if nothing could be written."""
    timeout: int = 60
    """Seconds for all of it."""
    patience: int = 10
    """Seconds in which a device may appear."""

    def text(self, first: Sequence[str] = ()) -> bytes:
        """
        Return the settings as the copier reads them.

        :param first: Lines to put before them.
        :raises UsageError: If it would not understand one.
        """
        lines = [
            *first,
            *(f"to={place}" for place in self.to),
            f"then={self.then}",
            f"timeout={self.timeout}",
            f"patience={self.patience}",
        ]
        for line in lines:
            if (
                len(line.split()) != 1
                or not line.isprintable()
                or len(line) > _MAX_LINE
            ):
                raise UsageError(
                    f"{line!r}: expected at most {_MAX_LINE} characters, and no space"
                )
        text = "".join(f"{line}\n" for line in lines).encode()
        if len(text) > _MAX_TEXT or not 0 < len(self.to) <= _MAX_PLACES:
            raise UsageError(
                f"{len(self.to)} places in {len(text)} bytes, expected 1 to "
                f"{_MAX_PLACES} in at most {_MAX_TEXT}"
            )
        return text


def write_settings(settings: CopierSettings, root: Path = Path("/")) -> None:
    """
    Keep the settings.

    :param root: The folder with ``etc``.
    :raises OutputError: If they cannot be written.
    """
    path = root / SETTINGS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent}: {error.strerror}") from error
    with PartialFile(path) as file:
        file.write(settings.text())


def find_copy(root: Path = Path("/")) -> Path | Range:
    """
    Return what this machine's crash kernel left last: a file, a device, or memory.

    :param root: The folder with ``etc`` and all places.
    :raises TargetError: If it left nothing, or its settings are not known.
    """
    path = root / SETTINGS
    tried = []
    for text in read_places(path):
        try:
            place = parse_place(text)
            for found in find_copies(place, root):
                return found
            tried.append("nothing in " + (place.folder or place.file or place.kind))
        except KmemdumpError as error:
            tried.append(str(error).partition("\n")[0])
    why = "; ".join(tried) or "it names no place"
    raise TargetError(
        f"kdump: the crash kernel left nothing ({path}): {why}\n"
        "'kmemdump check' says whether it would"
    )


def read_places(path: Path) -> list[str]:
    """
    Read where the crash kernel writes to, as ``set_all()`` of kdump/main.c does.

    A place may be none; the copier goes on with the next one, too.

    :raises TargetError: If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_TEXT)
    except OSError as error:
        raise TargetError(
            f"kdump: {path}: {error.strerror}\nit is written by kmemdump mark live "
            "--backend kdump --make-initramfs FILE --to PLACE"
        ) from error
    words = _WORD.findall(os.fsdecode(data.partition(b"\0")[0]))
    places = [word.removeprefix("to=") for word in words if word.startswith("to=")]
    return places[:_MAX_PLACES]
