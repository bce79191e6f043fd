# SPDX-License-Identifier: GPL-2.0-or-later
"""Open what firmware left, or would dump, by the name that a user gives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from kmemdump.crash_kernel.reserved import memory_in_file
from kmemdump.crash_kernel.settings import find_copy
from kmemdump.errors import KmemdumpError, TargetError
from kmemdump.firmware.discovery import find_table
from kmemdump.firmware.kinfo_search import read_kinfo, read_kinfo_file
from kmemdump.firmware.minidump_table import MinidumpTable, read_table
from kmemdump.firmware_dumps.assemble import FirmwareDump
from kmemdump.firmware_dumps.elf_core import collect_elf_core
from kmemdump.firmware_dumps.kinfo import collect_kinfo
from kmemdump.firmware_dumps.minidump_table import collect_table
from kmemdump.firmware_dumps.target import DumpTarget
from kmemdump.formats.kinfo import Kinfo
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets import Target
from kmemdump.targets.devmem import ReservedMemory
from kmemdump.targets.file import read_vmcoreinfo
from kmemdump.targets.live import LiveTarget

__all__ = ["LocatedKinfo", "Options", "open_source", "read_registered"]


class Options(NamedTuple):
    """The user's settings for a source."""

    smem: Range | None = None
    """Where SMEM is, in physical memory."""
    kinfo: int | None = None
    """Physical address of a ``debug_kinfo`` in bytes."""
    vmcoreinfo: Path | None = None
    """File with the text of VMCOREINFO."""
    memory_map: str | None = None
    """Map of a raw RAM image; see :func:`kmemdump.targets.image.parse_memory_map`."""
    identity: tuple[Path, ...] = ()
    """Files of private keys, for a source that is sealed."""

    @property
    def has_table(self) -> bool:
        """Whether the address of a table is given."""
        return self.smem is not None or self.kinfo is not None


class LocatedKinfo(NamedTuple):
    """A kinfo, and where it is."""

    kinfo: Kinfo
    address: int | None
    """Physical address in bytes; ``None`` in a file of its own."""


@contextmanager
def open_source(spec: str, options: Options) -> Iterator[DumpTarget]:
    """
    Put together what firmware left, for the body of a ``with`` statement.

    :param spec: A folder of files, an image, a target with a table in its memory, or
        ``kdump``: what this machine's crash kernel left.
    :raises KmemdumpError: If there is nothing to collect.
    """
    if spec == "kdump":
        found = find_copy()
        if isinstance(found, Range):
            with memory_in_file(found) as path, open_source(str(path), options) as it:
                yield it
            return
        spec = str(found)
    if read_kinfo_file(spec) is not None:
        raise TargetError(
            f"{spec}: is a kinfo, which has addresses and no memory\n"
            "'kmemdump regions' lists them; expected the RAM image that it was in"
        )
    info = options.vmcoreinfo
    target = open_target(
        spec,
        vmcoreinfo=info,
        memory_map=options.memory_map,
        identity=options.identity,
    )
    with closing(target):
        if isinstance(target, DumpTarget) and not options.has_table:
            yield target
            return
        dump = None if options.has_table else collect_elf_core(target)
        if dump is not None:
            yield DumpTarget(dump, None if info is None else read_vmcoreinfo(info))
            return
        # A table may not name its machine; the kernel in the memory does.
        dump = _collect(target, options)._replace(machine=target.machine)
        text = read_vmcoreinfo(info) if info is not None else None
        if text is None and dump.backend == "kinfo":
            with suppress(KmemdumpError):  # The image alone does not hold it.
                text = target.vmcoreinfo()
        yield DumpTarget(dump, text)


def read_registered(
    spec: str, options: Options, *, subsystem: int = 0
) -> MinidumpTable | LocatedKinfo | FirmwareDump:
    """
    Read what is registered with firmware.

    :param spec: As for :func:`open_source`, or a kinfo in a file of its own.
    :param subsystem: Number of the processor, in a minidump table; 0 is Linux's.
    :return: The table, or the dump that firmware made with one.
    :raises KmemdumpError: If there is neither.
    """
    kinfo = read_kinfo_file(spec)
    if kinfo is not None:
        return LocatedKinfo(kinfo, None)
    with ExitStack() as stack:
        target = open_target(spec, memory_map=options.memory_map)
        stack.enter_context(closing(target))
        if isinstance(target, DumpTarget) and not options.has_table:
            return target.dump
        table = _find_table(target, options)
        memory, name = target.memory, target.name
        if isinstance(target, LiveTarget):
            memory = stack.enter_context(closing(ReservedMemory(memory)))
        if isinstance(table, Range):
            return read_table(memory, table, name, subsystem=subsystem)
        return LocatedKinfo(read_kinfo(memory, table, name), table)


def _collect(target: Target, options: Options) -> FirmwareDump:
    table = _find_table(target, options)
    if isinstance(table, Range):
        return collect_table(target.memory, table, target.name)
    return collect_kinfo(target.memory, table, target.name)


def _find_table(target: Target, options: Options) -> Range | int:
    if options.smem is not None:
        return options.smem
    if options.kinfo is not None:
        return options.kinfo
    memory = None if isinstance(target, LiveTarget) else target.memory
    return find_table(memory, target.name)
