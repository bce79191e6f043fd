# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel modules that a crash kernel needs to reach a disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from kmemdump.errors import TargetError, UnsupportedError
from kmemdump.kernel.module_file import module_name, read_module

__all__ = ["drivers_of", "read_modules"]

_MAX_LEVELS = 64
"""Devices from a partition up to its bus."""


def drivers_of(device: Path, root: Path = Path("/")) -> list[str]:
    """
    Return the names of the modules that drive a device, and what it is connected to.

    :param device: A block or character device.
    :param root: The folder with ``sys``.
    :raises TargetError: If it is none.
    """
    try:
        status = device.stat()
    except OSError as error:
        raise TargetError(f"{device}: {error.strerror}") from error
    kind = "block" if stat.S_ISBLK(status.st_mode) else "char"
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    place = root / "sys/dev" / kind / number
    if not place.exists():
        return []  # A file, say.
    names: list[str] = []
    path = place.resolve()
    for _ in range(_MAX_LEVELS):
        module = path / "driver/module"
        if module.is_symlink():
            names.append(module.resolve().name)
        if path.name == "devices" or path == path.parent:
            break
        path = path.parent
    return list(dict.fromkeys(reversed(names)))  # The bus first.


def read_modules(
    release: str, names: Sequence[str], root: Path = Path("/")
) -> dict[str, bytes]:
    """
    Read modules and those that they depend on, in the order to load them.

    What is built into the kernel is left out.

    :param release: As ``uname -r`` prints it.
    :return: Contents by name, not compressed.
    :raises UnsupportedError: If the kernel has neither such a module nor it built in.
    """
    folder = root / "lib/modules" / release
    depends, builtin = _read_depends(folder), _read_builtin(folder)
    found: dict[str, bytes] = {}
    for name in names:
        name = name.replace("-", "_")
        if name not in depends:
            if name in builtin:
                continue
            raise UnsupportedError(f"{folder}: there is no module {name}")
        for path in reversed(depends[name]):  # Its own comes first in the file.
            module = module_name(path)
            if module not in found:
                found[module] = read_module(folder / path)
    return found


def _read_depends(folder: Path) -> dict[str, list[str]]:
    """Read modules.dep: PATH: PATH-OF-WHAT-IT-NEEDS…, all of them."""
    try:
        text = (folder / "modules.dep").read_text()
    except OSError as error:
        raise UnsupportedError(f"{folder}/modules.dep: {error.strerror}") from error
    found = {}
    for line in text.splitlines():
        path, _, needed = line.partition(":")
        found[module_name(path)] = [path, *needed.split()]
    return found


def _read_builtin(folder: Path) -> set[str]:
    try:
        text = (folder / "modules.builtin").read_text()
    except OSError as error:
        raise UnsupportedError(f"{folder}/modules.builtin: {error.strerror}") from error
    return {module_name(line) for line in text.splitlines()}
