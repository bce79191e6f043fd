# SPDX-License-Identifier: GPL-2.0-or-later
"""
Find the debug files of modules.

A file is known by the module's build id. Where that is not known, as in a log, the name
of the module and the release of the kernel lead to files that may be the right ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.kernel.attach import open_debug_file
from kmemdump.kernel.debuginfod import ask_debuginfod, has_servers
from kmemdump.kernel.module_file import module_name
from kmemdump.kernel.vmlinux_search import build_id_path, is_file_name

__all__ = ["ModuleSearch"]

_FILE = re.compile(r".+\.ko(\.debug)?(\.(gz|xz|zst))?")


class ModuleSearch:
    """
    A search for the debug files of modules of one kernel.

    :param release: Of the kernel; ``None`` if it is not known.
    :param given: Files and folders of the user, which are searched first.
    :param environ: The environment. If it has ``DEBUGINFOD_URLS`` and a file is not on
        this machine, elfutils' client asks those servers; ``None`` if they are not to
        be asked.
    :param root: Root of the file system.
    :raises TargetError: If one of *given* is not there.
    """

    def __init__(
        self,
        release: str | None,
        given: Sequence[Path] = (),
        environ: Mapping[str, str] | None = None,
        *,
        root: Path = Path("/"),
    ) -> None:
        for path in given:
            if not path.exists():
                raise TargetError(
                    f"{path}: no such file or folder, expected debug files of modules"
                )
        self._given = given
        self._environ = environ
        self._debug = root / "usr/lib/debug"
        self._known: dict[Path, dict[str, list[Path]]] = {}
        self._folders: list[Path] = []
        if release is not None and is_file_name(release):
            parts = Path("lib/modules", release)
            self._folders = [
                self._debug / parts,
                self._debug / "usr" / parts,
                root / parts,
            ]

    def find(self, name: str, build_id: str | None) -> tuple[list[Path], str]:
        """
        Find what has debug info of a module.

        :param name: As the kernel has it.
        :param build_id: In hexadecimal; without one, several files may be found.
        :return: The files, and the reason if none was found.
        """
        found: list[Path] = []
        others: list[str] = []
        for path in self._paths(name, build_id):
            try:
                file = open_debug_file(path)
            except KmemdumpError:
                continue
            its = file.build_id.hex() if file.build_id else None
            if file.debug_file_path is None:
                continue  # What is installed is stripped.
            if build_id is None:
                found.append(path)
            elif its == build_id:
                return [path], ""
            else:
                others.append(str(path))
        why = "no debug file in the usual places"
        if others:
            why += f" ({', '.join(others)}: of another build)"
        if found or build_id is None or self._environ is None:
            return found, "" if found else why
        if has_servers(self._environ):
            path_or_none, problem = ask_debuginfod(build_id, self._environ)
            if path_or_none is not None:
                return [path_or_none], ""
            why += f", nor by debuginfod: {problem}"
        return [], why

    def _paths(self, name: str, build_id: str | None) -> Iterator[Path]:
        for place in self._given:
            if place.is_dir():
                if build_id is not None:
                    yield build_id_path(place, build_id)
                yield from self._files(place).get(name, ())
            elif build_id is not None or module_name(place.name) == name:
                yield place
        if build_id is not None:
            yield build_id_path(self._debug, build_id)
        for folder in self._folders:
            yield from self._files(folder).get(name, ())

    def _files(self, folder: Path) -> Mapping[str, Sequence[Path]]:
        """Return the files of modules below a folder, by name."""
        if folder not in self._known:
            found = self._known[folder] = {}
            for base, _, files in os.walk(folder):
                for file in sorted(files):
                    if _FILE.fullmatch(file):
                        found.setdefault(module_name(file), []).append(Path(base, file))
        return self._known[folder]
