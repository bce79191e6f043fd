# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug files that a report needs for source lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from kmemdump.diagnosis.records import Frame
from kmemdump.errors import TargetError
from kmemdump.kernel.debuginfod import SERVERS, has_servers
from kmemdump.kernel.module_search import ModuleSearch
from kmemdump.kernel.vmlinux_search import find_vmlinux
from kmemdump.report.records import Findings, Loss

__all__ = ["DebugFiles"]

_MAX_NAMES = 5


class DebugFiles:
    """
    Debug files of a kernel and of the modules that have functions in its traces.

    :param vmlinux: The kernel's, if the user named it.
    :param given: Files and folders of modules that the user named.
    :param environ: The environment, which may name servers of debuginfod; ``None`` if
        the user asked for nothing that is not on this machine.
    :param kernel: Whether to find the kernel's, too.
    :param root: Root of the file system.
    """

    def __init__(
        self,
        vmlinux: Path | None,
        given: Sequence[Path] = (),
        environ: Mapping[str, str] | None = None,
        *,
        kernel: bool = False,
        root: Path = Path("/"),
    ) -> None:
        self.vmlinux = vmlinux
        self.modules: dict[str, list[Path]] = {}
        """By the names of modules; several only where no build id is known."""
        self._given = given
        self._environ = environ
        self._root = root
        self._kernel = kernel and vmlinux is None
        self._without_kernel: Loss | None = None
        self._lacking: dict[str, str] = {}

    def find_kernel(self, report: Findings) -> bool:
        """
        Find the kernel's debug file, if it is to be found.

        :return: Whether it was found.
        """
        if not self._kernel:
            return False
        kernel = report.kernel
        try:
            if kernel.release is None:
                raise TargetError("it names no kernel")
            self.vmlinux = find_vmlinux(
                kernel.release, kernel.build_id, self._environ or {}, root=self._root
            )
        except TargetError as error:
            why = "; ".join(str(error).splitlines())
            self._without_kernel = Loss("the source lines", why)
            return False
        return True

    def find_modules(self, report: Findings) -> None:
        """Find those of the modules that a report names."""
        search = ModuleSearch(
            report.kernel.release, self._given, self._environ, root=self._root
        )
        builds = {module.name: module.build_id for module in report.modules}
        for name in _modules(report):
            build_id = builds.get(name)
            if build_id is None and report.cpus:
                self._lacking[name] = "no build id in memory"
                continue
            found, why = search.find(name, build_id)
            if found:
                self.modules[name] = found
            else:
                self._lacking[name] = why

    def losses(self, report: Findings) -> tuple[Loss, ...]:
        """
        Return what the user asked for and is missing.

        :param report: Made with these files.
        """
        if self._environ is None:
            return ()
        found = [] if self._without_kernel is None else [self._without_kernel]
        if self._lacking:
            whys = "; ".join(dict.fromkeys(self._lacking.values()))
            advice = "name a folder or file that has it with --modules PATH"
            if not has_servers(self._environ):
                advice += f", or download it: DEBUGINFOD_URLS={SERVERS}"
            what = _name_modules(list(self._lacking))
            found.append(Loss(f"the source lines of {what}", f"{whys}; {advice}"))
        with_lines = {frame.module for frame in _frames(report) if frame.source}
        useless = [
            name for name in self.modules if report.cpus and name not in with_lines
        ]
        if useless:
            paths = ", ".join(str(self.modules[name][0]) for name in useless)
            what = _name_modules(useless)
            found.append(Loss(f"the source lines of {what}", f"none are in {paths}"))
        return tuple(found)


def _frames(report: Findings) -> Iterator[Frame]:
    return chain(
        *(cpu.frames for cpu in report.cpus),
        *(task.frames for task in report.blocked),
        *(group.frames for group in report.stacks),
    )


def _modules(report: Findings) -> list[str]:
    """Return the names of modules in traces; those of a log if there are no others."""
    named = [frame.module for frame in _frames(report)]
    if not report.cpus:
        named = [entry.module for entry in report.trace]
    return [name for name in dict.fromkeys(named) if name is not None]


def _name_modules(names: Sequence[str]) -> str:
    words = ", ".join(names[:_MAX_NAMES])
    if len(names) > _MAX_NAMES:
        words += f" and {len(names) - _MAX_NAMES} more"
    return f"module{'s' if len(names) > 1 else ''} {words}"
