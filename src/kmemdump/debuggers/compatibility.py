# SPDX-License-Identifier: GPL-2.0-or-later
"""The debuggers that can open a file, their limits, and their command lines."""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.coreimage import Manifest
from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.opening import was_sealed
from kmemdump.targets import Target
from kmemdump.targets.kdump import KdumpMemory
from kmemdump.targets.vmcore import core_of
from kmemdump.text import path_argument, shell_command
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["VMLINUX", "DebuggedFile", "Debugger", "describe_file", "find_debuggers"]

_NOTHING_BESIDE = ("-nx", "-iex", "set auto-load off")
"""
For gdb: no .gdbinit, of the folder that it is started in neither, and no scripts beside
or in the files that it opens, whatever auto-load safe-path says.
"""
VMLINUX = "VMLINUX"
"""Placeholder in a command line for a file that the user must find."""


@dataclass(frozen=True, slots=True)
class Debugger:
    """A debugger, and how to start it."""

    name: str
    command: str
    """For a shell; empty if it cannot open the file."""
    needs_vmlinux: bool
    note: str = ""
    """What to expect, or why it cannot open the file."""


@dataclass(frozen=True, slots=True)
class DebuggedFile:
    """Properties that decide whether and how a debugger opens a file."""

    path: Path
    is_elf: bool
    is_kdump: bool
    """Whether it is compressed as kdump does, flattened or not."""
    has_names: bool
    """Whether its memory has virtual addresses, which gdb needs."""
    self_contained: bool
    """Whether symbols and types are in it."""
    manifest: Manifest | None
    machine: int
    """``e_machine``."""
    offset: int | None
    """KASLR offset of the kernel's symbols in bytes, if known."""
    release: str | None
    build_id: str | None
    sealed: bool = False
    """Whether a debugger opens it only by way of ``kmemdump open``."""

    def argv(
        self, debugger: str, vmlinux: Path | None, extra: Sequence[str] = ()
    ) -> list[str]:
        """
        Return the command line that starts a debugger.

        :param vmlinux: May be absent for drgn, if the file is self-contained.
        :param extra: Arguments that the user adds.
        """
        symbols = str(vmlinux) if vmlinux is not None else VMLINUX
        if debugger == "drgn":
            program = str(_beside_python("drgn"))
            if vmlinux is None:
                return [program, "-c", path_argument(self.path), *extra]
            options = ["--no-default-symbols", "-s", symbols]
            return [program, *options, "-c", path_argument(self.path), *extra]
        if debugger == "crash":
            # It would run the .crashrc of the folder that it is started in.
            return ["crash", "--no_crashrc", *extra, symbols, path_argument(self.path)]
        return [*self._gdb(symbols, commands=True), *extra]

    def _gdb(self, vmlinux: str, *, commands: bool) -> list[str]:
        shift = f"-o {self.offset:#x} " if self.offset else ""
        argv = ["gdb"]
        if self.foreign and shutil.which("gdb-multiarch"):
            argv = ["gdb-multiarch"]
        if commands:
            # A pager ("type RET to continue") would make the log useless.
            argv += ["-q", *_NOTHING_BESIDE, "-ex", "set pagination off"]
        # Not with the command core-file, whose quoting differs between versions.
        argv += ["-c", path_argument(self.path)]
        argv += ["-ex", f"symbol-file {shift}{shlex.quote(vmlinux)}"]
        if commands:
            script = str(files("kmemdump.debuggers").joinpath("gdb_commands.py"))
            argv += ["-ex", f"source {script}"]
        return argv

    @property
    def quoted(self) -> str:
        """The path, quoted for a shell."""
        return shell_command(self.path)

    @property
    def foreign(self) -> bool:
        """Whether the kernel's architecture differs from this machine's."""
        try:
            return arch_from_elf(self.machine).name != platform.machine()
        except UnsupportedError:
            return True


def describe_file(target: Target, path: Path, info: VmcoreInfo | None) -> DebuggedFile:
    """
    Describe a target that is a file.

    :param info: VMCOREINFO of the kernel in it, if known.
    :raises FormatError: If it is a core image with a broken manifest.
    """
    core = core_of(target)
    manifest = core.manifest if core is not None else None
    kernel = manifest.kernel if manifest is not None else None
    return DebuggedFile(
        path=path,
        is_elf=core is not None,
        is_kdump=isinstance(target.memory, KdumpMemory),
        has_names=core is not None and any(it.vaddr for it in core.headers),
        self_contained=core is not None and core.has_debug_info,
        manifest=manifest,
        machine=target.machine,
        offset=_offset(info),
        release=info.osrelease if info else kernel.osrelease if kernel else None,
        build_id=info.build_id if info else kernel.build_id if kernel else None,
        sealed=was_sealed(target),
    )


def _offset(info: VmcoreInfo | None) -> int | None:
    try:
        return info.kernel_offset if info is not None else None
    except (NotCapturedError, FormatError):
        return None


def find_debuggers(file: DebuggedFile) -> Iterator[Debugger]:
    """Yield each debugger, with how to start it or why it cannot open a file."""
    yield Debugger("kmemdump", f"kmemdump report {file.quoted}", False)
    for debugger in (_drgn(file), _crash(file), _gdb(file)):
        if file.sealed and debugger.command:
            command = f"kmemdump open --with {debugger.name} {file.quoted}"
            debugger = replace(debugger, command=command, needs_vmlinux=False)
        yield debugger


_ONLY_DUMPS = "it only opens ELF cores and kdump-compressed dumps"


def _drgn(file: DebuggedFile) -> Debugger:
    if not (file.is_elf or file.is_kdump):
        return Debugger("drgn", "", True, _ONLY_DUMPS)
    if file.self_contained:
        note = "without a vmlinux where kmemdump is installed; with one: -s VMLINUX"
        return Debugger("drgn", f"drgn -c {file.quoted}", False, note)
    return Debugger("drgn", f"drgn -c {file.quoted} -s {VMLINUX}", True)


def _crash(file: DebuggedFile) -> Debugger:
    command = f"crash {VMLINUX} {file.quoted}"
    if not (file.is_elf or file.is_kdump):
        return Debugger("crash", "", True, _ONLY_DUMPS)
    if file.foreign:
        return Debugger(
            "crash", "", True, "it only opens kernels of its own architecture"
        )
    notes = []
    if (note := _too_old(file.release)) is not None:
        notes.append(note)
    if file.manifest is not None:
        areas = {area.name: area for area in file.manifest.areas}
        if "crash" not in areas:
            notes.append("may not start: area crash was not marked")
        elif not areas["crash"].complete:
            notes.append("may miss something: area crash is not complete")
    return Debugger("crash", command, True, "; ".join(notes))


_CRASHES = (
    # 8.0.6 asks for members of slab caches, 9.0.2 for one of modules (num_gpl_syms),
    # which 7.2 and 7.3 do not have; no kernel between 6.12 and 7.2 has been tried.
    (
        (7, 0),
        "8.0.6 is too old for this kernel, 9.0.2 opens it if no module is loaded",
    ),
    # 8.0.2 is Debian 12's, 8.0.6 Debian 13's. 8.0.2 opens 6.1; no kernel between that
    # and 6.12 has been tried.
    ((6, 12), "8.0.2 is too old for this kernel, 8.0.6 is not"),
    (
        (6, 1),
        "8.0.2 finds only running tasks of this kernel, in whole dumps too; 8.0.6 "
        "finds all",
    ),
)
"""Since which kernel a version of crash is known to be too old, and what is not."""


def _too_old(release: str | None) -> str | None:
    # The release decides, since only crash knows what it lacks.
    found = re.match(r"(\d+)\.(\d+)", release or "")
    version = (int(found[1]), int(found[2])) if found is not None else (0, 0)
    return next((note for since, note in _CRASHES if version >= since), None)


def _gdb(file: DebuggedFile) -> Debugger:
    if not file.is_elf:
        return Debugger("gdb", "", True, "it only opens ELF cores")
    if not file.has_names:  # For example, a dump by QEMU.
        return Debugger("gdb", "", True, "the file lacks virtual addresses")
    return Debugger("gdb", shell_command(*file._gdb(VMLINUX, commands=False)), True)


def _beside_python(name: str) -> Path:
    """Return the path of a program installed with us, or found by the shell."""
    own = Path(sys.executable).with_name(name)
    return own if own.exists() else Path(name)
