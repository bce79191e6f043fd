# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the debug file of a kernel by its build id, in the usual places."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.installing import describe_install
from kmemdump.kernel.attach import debug_file_build_id
from kmemdump.kernel.debug_packages import find_debug_package

__all__ = ["debug_file_paths", "find_vmlinux"]

_DEBUGINFOD = "debuginfod-find"
_SERVERS = "https://debuginfod.elfutils.org/"
"""Asks those of the distributions."""
_BOUNDS = {"DEBUGINFOD_MAXSIZE": str(4 << 30), "DEBUGINFOD_MAXTIME": "3600"}
"""Bytes and seconds of a download, if the user sets no others: debuginfod-find(1)."""


def debug_file_paths(
    release: str, build_id: str | None, root: Path = Path("/")
) -> Iterator[Path]:
    """
    Iterate over the paths where distributions put the debug file of a kernel.

    :param release: May be a stranger's: one that is no file name leads nowhere.
    :param build_id: In hexadecimal.
    """
    debug = root / "usr/lib/debug"
    if build_id is not None:
        yield debug / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"
    if "/" in release or release in ("", ".", ".."):
        return
    yield debug / "boot" / f"vmlinux-{release}"  # Debian before 6.19, Ubuntu
    yield debug / "lib/modules" / release / "vmlinux"  # Debian, Fedora, RHEL
    yield debug / "usr/lib/modules" / release / "vmlinux"
    yield debug / "boot" / f"vmlinux-{release}.debug"  # SUSE
    yield debug / "usr/lib/modules" / release / "vmlinux.debug"
    yield root / "lib/modules" / release / "build/vmlinux"  # Built on this machine.


def find_vmlinux(
    release: str,
    build_id: str | None,
    environ: Mapping[str, str],
    *,
    root: Path = Path("/"),
) -> Path:
    """
    Find the debug file of a kernel.

    :param build_id: In hexadecimal; without one, the release decides.
    :param environ: The environment. If it has ``DEBUGINFOD_URLS`` and the file is not
        on this machine, elfutils' client asks those servers.
    :param root: Root of the file system.
    :raises TargetError: If it is not found; the message says what to do.
    """
    others = []
    for path in debug_file_paths(release, build_id, root):
        if not path.is_file():
            continue
        try:
            found = debug_file_build_id(path)
        except KmemdumpError:
            continue  # A vmlinux without debug information.
        if build_id is None or found == build_id:
            return path
        others.append(str(path))
    which = f"kernel {release}" + (f", build id {build_id}" if build_id else "")
    problem = f"no vmlinux of {which} in the usual places"
    if others:
        problem += f" ({', '.join(others)}: another build's)"
    if build_id is not None and environ.get("DEBUGINFOD_URLS"):
        downloaded, why = _ask_debuginfod(build_id, environ)
        if downloaded is not None:
            return downloaded
        problem += f", nor by debuginfod: {why}"
    advice = f"name it with --vmlinux FILE ({find_debug_package(release)})"
    if build_id is not None and not environ.get("DEBUGINFOD_URLS"):
        advice += f", or download it: DEBUGINFOD_URLS={_SERVERS}"
    raise TargetError(f"{problem}\n{advice}")


def _ask_debuginfod(
    build_id: str, environ: Mapping[str, str]
) -> tuple[Path | None, str]:
    program = shutil.which(_DEBUGINFOD, path=environ.get("PATH"))
    if program is None:
        advice = describe_install(_DEBUGINFOD)
        return None, f"{_DEBUGINFOD} is not installed ({advice})"
    # Hundreds of megabytes: the client shows its own progress.
    done = subprocess.run(
        (program, "debuginfo", build_id),
        env={"DEBUGINFOD_PROGRESS": "1", **_BOUNDS, **environ},
        umask=0o077,  # Of the cache, which other programs of this user share.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if os.isatty(2) else subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines()
        return None, lines[-1] if lines else "no server has the file"
    path = Path(done.stdout.strip())
    try:
        found = debug_file_build_id(path)
    except KmemdumpError as error:
        return None, str(error)
    if found != build_id:
        return None, f"{path} is of build {found}, which a server gave for it"
    return path, ""
