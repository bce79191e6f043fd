# SPDX-License-Identifier: GPL-2.0-or-later
"""Find the debug file of a kernel by its build id, in the usual places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.kernel.attach import debug_file_build_id
from kmemdump.kernel.debug_packages import find_debug_package
from kmemdump.kernel.debuginfod import SERVERS, ask_debuginfod, has_servers

__all__ = ["build_id_path", "debug_file_paths", "find_vmlinux", "is_file_name"]


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
        yield build_id_path(debug, build_id)
    if not is_file_name(release):
        return
    yield debug / "boot" / f"vmlinux-{release}"  # Debian before 6.19, Ubuntu
    yield debug / "lib/modules" / release / "vmlinux"  # Debian, Fedora, RHEL
    yield debug / "usr/lib/modules" / release / "vmlinux"
    yield debug / "boot" / f"vmlinux-{release}.debug"  # SUSE
    yield debug / "usr/lib/modules" / release / "vmlinux.debug"
    yield root / "lib/modules" / release / "build/vmlinux"  # Built on this machine.


def build_id_path(folder: Path, build_id: str) -> Path:
    """Return where a folder of debug files has the one of a build."""
    return folder / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug"


def is_file_name(text: str) -> bool:
    """Return whether a stranger's text leads to nowhere else, as part of a path."""
    return "/" not in text and text not in ("", ".", "..")


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
    if build_id is not None and has_servers(environ):
        downloaded, why = ask_debuginfod(build_id, environ)
        if downloaded is not None:
            return downloaded
        problem += f", nor by debuginfod: {why}"
    advice = f"name it with --vmlinux FILE ({find_debug_package(release)})"
    if build_id is not None and not has_servers(environ):
        advice += f", or download it: DEBUGINFOD_URLS={SERVERS}"
    raise TargetError(f"{problem}\n{advice}")
