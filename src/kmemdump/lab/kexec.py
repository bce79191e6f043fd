# SPDX-License-Identifier: GPL-2.0-or-later
"""kexec for a guest: Debian's kexec-tools, or this machine's, with all it needs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.installing import describe_install, require_programs
from kmemdump.lab.apt import have_apt
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.commands import run
from kmemdump.lab.other_programs import loader, unpack_libraries
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.shared_libraries import libraries

__all__ = ["kexec_command", "kexec_files"]

_NAME = "kexec"
_PLACES = ("sbin/kexec", "usr/sbin/kexec")
_LOADER = re.compile(r"ld-(?:linux|musl)-[a-z0-9_-]+\.so\.\d+")
"""glibc's, and musl's, which takes the same options."""


def kexec_files(cache: PackageCache, architecture: Architecture) -> tuple[Path, ...]:
    """
    Return the program, its loader and its libraries, for `Setup.files`.

    :raises UnsupportedError: If it cannot be downloaded, or is not installed, or has
        no loader.
    """
    if not have_apt():
        require_programs(_NAME)
        program = Path(str(shutil.which(_NAME))).resolve()
        files = (program, *sorted(libraries([program])))
        kexec_command(files)  # Before a guest is booted.
        return files

    def make(folder: Path) -> None:
        apt = cache.apt(architecture)
        unpack_libraries(apt.unpack("kexec-tools", folder), apt, folder)

    folder = cache.entry(f"kexec-tools_{architecture.debian}", make)
    found = [folder / it for it in _PLACES if (folder / it).exists()]
    if not found:
        raise UnsupportedError(f"{folder}: the package holds no kexec; remove it")
    start = loader(folder, architecture)
    places = [Path(it) for it in start[-1].split(":")]
    return (found[0], *_needed(found[0], places, architecture))


def kexec_command(files: Sequence[Path]) -> str:
    """
    Return the beginning of the guest's command line.

    :param files: See :func:`kexec_files`.
    :raises UnsupportedError: If no loader is among them.
    """
    name = next((it.name for it in files if _LOADER.fullmatch(it.name)), None)
    if name is None:
        raise UnsupportedError(
            f"{files[0]}: is not linked with glibc or musl, expected the "
            "distribution's\n" + describe_install(_NAME)
        )
    return f"/files/{name} --library-path /files /files/{_NAME}"


def _needed(
    program: Path, places: Sequence[Path], architecture: Architecture
) -> Iterator[Path]:
    """Yield the libraries that a program of a guest needs, and those need in turn."""
    seen: set[str] = set()
    todo = [program]
    while todo:
        text = run(f"{architecture.compiler}objdump", "-p", str(todo.pop()))
        for name in re.findall(r"^\s+NEEDED\s+(\S+)$", text, re.MULTILINE):
            if name in seen:
                continue
            seen.add(name)
            found = next((it / name for it in places if (it / name).exists()), None)
            if found is None:
                raise UnsupportedError(f"{program}: its library {name} is missing")
            todo.append(found)
            yield found
