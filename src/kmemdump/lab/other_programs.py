# SPDX-License-Identifier: GPL-2.0-or-later
"""
Programs of another release of Debian, which this machine runs though its libraries are
older: with those of that release, unpacked into a folder.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import Apt
from kmemdump.lab.architectures import Architecture

__all__ = ["loader", "unpack_libraries", "wrap_programs"]

_LIBRARY = re.compile(r"(?:lib|zlib)\S*")
_MOST = 100
"""Libraries that a program may need, and those need in turn."""


def unpack_libraries(depends: str, apt: Apt, folder: Path) -> None:
    """
    Unpack the libraries that a package needs, and those that they need.

    :param depends: What the package depends on, as its control file says.
    :param apt: Where the libraries are.
    :raises UnsupportedError: If one cannot be downloaded.
    """
    done: set[str] = set()
    todo = _libraries(depends)
    while todo and len(done) < _MOST:
        name = todo.pop()
        if name not in done:
            done.add(name)
            todo += _libraries(apt.unpack(name, folder))
    # Since Debian 13, packages expect that the system has made this link.
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to("usr/lib")


def _libraries(depends: str) -> list[str]:
    # Of alternatives the first, without its architecture and version.
    names = (re.split("[ :]", item.strip())[0] for item in depends.split(","))
    return [name for name in names if _LIBRARY.fullmatch(name)]


def loader(folder: Path, architecture: Architecture) -> tuple[str, ...]:
    """
    Return the beginning of a command line: the loader of libraries in a folder.

    :raises UnsupportedError: If it is not there.
    """
    program, places = _find_loader(folder, architecture)
    return (str(program), "--library-path", ":".join(map(str, places)))


def _find_loader(folder: Path, architecture: Architecture) -> tuple[Path, list[Path]]:
    triplet = architecture.compiler.rstrip("-")
    places = [folder / "lib" / triplet, folder / "usr/lib" / triplet]
    for place in places:
        for program in sorted(place.glob("ld-linux-*.so.*")):
            return program, [it for it in places if it.exists()]
    raise UnsupportedError(f"{folder}: the packages hold no loader; remove it")


def wrap_programs(programs: Path, libraries: Path, architecture: Architecture) -> None:
    """
    Have the programs in a folder start with other libraries, where ours do not do.

    Both folders may be moved together afterwards.

    :param libraries: See :func:`unpack_libraries`.
    """
    program, places = _find_loader(libraries, architecture)
    for path in sorted(programs.rglob("*")):
        if path.is_symlink() or not path.is_file() or not _lacks_libraries(path):
            continue
        real = path.with_name(f"{path.name}.real")
        path.rename(real)

        def beside(there: Path, start: Path = path.parent) -> str:
            return f'"$here"/{shlex.quote(os.path.relpath(there, start))}'

        path.write_text(
            '#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\n'
            f"exec {beside(program)} --library-path {':'.join(map(beside, places))} "
            f'{beside(real)} "$@"\n'
        )
        path.chmod(0o755)


def _lacks_libraries(path: Path) -> bool:
    """Return whether a file is a program that this machine's libraries do not run."""
    with open(path, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return False
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True)
    return "not found" in done.stdout + done.stderr
