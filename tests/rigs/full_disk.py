# SPDX-License-Identifier: GPL-2.0-or-later
"""Small file systems, which fill up for real."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["fill", "mounted_image", "mounted_tmpfs", "needs_root", "remount"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@contextmanager
def mounted_tmpfs(folder: Path, size: int, files: int = 0) -> Iterator[Path]:
    """
    Mount a file system of *size* bytes in *folder*, for a ``with`` statement.

    :param files: Most files in it; 0 for any number.
    """
    disk = folder / "disk"
    disk.mkdir()
    option = f"size={size},nr_inodes={files}"
    command = ["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(disk)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@contextmanager
def mounted_image(folder: Path, size: int) -> Iterator[tuple[Path, Path]]:
    """
    Mount a file system that is in a file, whose every byte can be looked at.

    :return: Where it is mounted, and the file.
    """
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(size)
    for command in (
        ["mkfs.ext4", "-q", str(image)],
        ["mount", "-o", "loop", str(image), str(disk)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            pytest.skip(str(error))
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield disk, image
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def remount(disk: Path, option: str) -> None:
    """Mount a file system again: ``ro`` or ``rw``."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Use up all that is free but some bytes; return the file that does."""
    ballast = disk / "ballast"
    status = os.statvfs(disk)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)
    return ballast
