# SPDX-License-Identifier: GPL-2.0-or-later
"""
Set this machine's crash kernel up: write its root file system, and prepare the places
that its core image goes to.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from kmemdump.crash_kernel.initramfs import COPIER, pack_crash_initramfs
from kmemdump.crash_kernel.modules import drivers_of, read_modules
from kmemdump.crash_kernel.places import (
    Place,
    check_place,
    find_device,
    parse_place,
)
from kmemdump.crash_kernel.settings import CopierSettings, write_settings
from kmemdump.errors import OutputError, TargetError, UnsupportedError, UsageError
from kmemdump.files import PartialFile
from kmemdump.formats.rawdump import RAWDUMP_MAGIC

__all__ = [
    "ARGUMENTS",
    "Installed",
    "find_copier",
    "install_initramfs",
    "prepare_partition",
]

ARGUMENTS = "nr_cpus=1 reset_devices panic=10"
"""
For the crash kernel's command line: less memory, devices that start anew, and a reboot
if it panics itself. ``systemd/kmemdump-kexec.service`` has them, too.
"""
_ROOT = Path("/")
_ON_PARTITIONS = ("file", "raw")
_COPIERS = ("usr/lib/kmemdump", "usr/local/lib/kmemdump")
_EMPTY = 4 << 20
"""Bytes at the start of a partition that must be zeros: a file system's are not."""
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~_-]{0,100}")


class Installed(NamedTuple):
    """What was written."""

    size: int
    """Of the root file system in bytes."""
    modules: tuple[str, ...]
    kernel: Path
    """The kernel that it is for."""
    prepared: tuple[Path, ...]
    """Partitions that were empty."""


def install_initramfs(
    path: Path,
    settings: CopierSettings,
    copier: Path | None = None,
    release: str | None = None,
    root: Path = _ROOT,
) -> Installed:
    """
    Write a root file system for the crash kernel, and prepare its partitions.

    The settings are kept, so that what it writes is found.

    :param path: Replaced if it exists.
    :param copier: The program; ``None`` for the installed one.
    :param release: The crash kernel's release; ``None`` for this kernel's.
    :raises UsageError: If a place is none.
    :raises KmemdumpError: If there is no copier, a module is missing, a partition is
        not empty or none, or memory is in use.
    """
    release = release or platform.release()
    if _RELEASE.fullmatch(release) is None:
        raise UsageError(f"{release!r} is not the release of a kernel")
    places = [parse_place(place) for place in settings.to]
    for place in places:
        if place.file is not None:
            raise UsageError(
                f"as:{place.file}: nothing is mounted in this crash kernel\n"
                "name a device: file:FOLDER@FSTYPE:DEVICE or raw:DEVICE"
            )
        check_place(place, root)
        _check_device(place, root)
    program = (copier or find_copier(root)).read_bytes()
    modules = read_modules(release, list(_wanted_modules(places, root)), root)
    data = pack_crash_initramfs(program, settings, modules)
    prepared = [
        device
        for place in places
        if place.kind == "raw" and prepare_partition(device := find_device(place, root))
    ]
    with PartialFile(path) as file:
        file.write(data)
    write_settings(settings, root)
    kernel = root / "boot" / f"vmlinuz-{release}"
    return Installed(len(data), tuple(modules), kernel, tuple(prepared))


def _check_device(place: Place, root: Path) -> None:
    """
    Check that a partition is one; below another root, files may stand for devices.

    :raises TargetError: If it is none: the crash kernel sees only devices.
    """
    if place.kind not in _ON_PARTITIONS or place.device is None or root != _ROOT:
        return
    device = find_device(place, root)
    if not device.is_block_device():
        raise TargetError(f"{device}: is no block device, expected a partition")


def find_copier(root: Path = _ROOT) -> Path:
    """
    Return the installed copier.

    :raises UnsupportedError: If it is not installed.
    """
    for folder in _COPIERS:
        path = root / folder / COPIER
        if path.exists():
            return path
    raise UnsupportedError(
        f"there is no {root / _COPIERS[0] / COPIER}\n"
        "build it from the source: make -C kdump install, or name one with --copier"
    )


def _wanted_modules(places: Sequence[Place], root: Path) -> Iterator[str]:
    for place in places:
        if place.device is not None:
            yield from drivers_of(find_device(place, root), root)
        if place.file_system is not None:
            yield place.file_system


def prepare_partition(path: Path) -> bool:
    """
    Mark an empty partition as one for dumps; the copier writes to no other.

    :return: Whether it was empty; ``False`` if it was prepared, or has a dump.
    :raises OutputError: If it holds something else, or cannot be written.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_EXCL)
        try:
            if os.pread(fd, len(RAWDUMP_MAGIC), 0) == RAWDUMP_MAGIC:
                return False
            if not _is_empty(fd):
                raise OutputError(
                    f"{path}: is not empty, expected zeros at its start\n"
                    "if nothing on it is needed: blkdiscard -z, or dd if=/dev/zero"
                )
            os.pwrite(fd, RAWDUMP_MAGIC, 0)
            os.fsync(fd)
            return True
        finally:
            os.close(fd)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error


def _is_empty(fd: int) -> bool:
    size = min(os.lseek(fd, 0, os.SEEK_END), _EMPTY)
    return not any(any(os.pread(fd, 65536, at)) for at in range(0, size, 65536))
