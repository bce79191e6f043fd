# SPDX-License-Identifier: GPL-2.0-or-later
"""
A VM's RAM as the host sees it: in a file that QEMU shares, or in QEMU's process.

Before use, either is compared with QEMU's own reads of guest memory: here a path may be
another file than for QEMU, a process ID another process. What answers may be no QEMU,
and know a few bytes of a file that only we can read: so it must be able to write the
file, or be the process's user.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import KmemdumpError, NotCapturedError, TargetError
from kmemdump.formats.mtree import FlatRange, parse_mtree
from kmemdump.memory.physical import FileMemory, JoinedFiles
from kmemdump.memory.ranges import Extent
from kmemdump.targets.peer import user_of
from kmemdump.targets.qmp_channel import QmpChannel, QmpCommandError

__all__ = ["RamMap", "find_processes", "open_ram", "read_ram_map"]

_MAX_BACKENDS = 4096
_MAX_SECTIONS = 1024
"""QEMU is asked about each; a VM with 256 hot-plugged DIMMs has about as many."""
_SAMPLE = 64
"""Bytes that are compared at an address."""
_ADDRESSES = 32
"""Addresses in each range that may have data to compare."""
_COMPARISONS = 8
"""Addresses that QEMU is asked for."""


@dataclass(frozen=True, slots=True)
class RamMap:
    """Where in the guest the memory backends appear."""

    sections: tuple[FlatRange, ...]
    """Sorted by the guest's address."""
    backends: Mapping[str, str]
    """The QOM type of each backend, by its name."""


def read_ram_map(client: QmpChannel) -> RamMap:
    """
    Ask QEMU where the guest's RAM is now.

    :raises TargetError: If QEMU does not say it.
    """
    backends = _backends(client)
    return RamMap(tuple(_ram_sections(client, list(backends))), backends)


def _backends(client: QmpChannel) -> dict[str, str]:
    """Return the name and the QOM type of each memory backend."""
    answer = client.execute("qom-list", {"path": "/objects"})
    found: dict[str, str] = {}
    for item in _dicts(answer):
        match = re.fullmatch(r"child<(memory-backend-[\w-]+)>", str(item.get("type")))
        if match and len(found) < _MAX_BACKENDS:
            found[str(item.get("name"))] = match[1]
    return found


def _dicts(answer: object) -> list[dict[str, object]]:
    """Return the objects in a QMP answer that should be a list of objects."""
    items = answer if isinstance(answer, list) else []
    return [item for item in items if isinstance(item, dict)]


def _ram_sections(client: QmpChannel, backends: Sequence[str]) -> list[FlatRange]:
    """
    Return where the memory *backends* appear in the guest, sorted.

    :raises TargetError: If none of them does.
    """
    known = set(backends)
    text = client.command_line("info mtree -f", timeout=30)
    sections = [
        section
        for item in parse_mtree(text, str(client.name))
        # Machine types before 4.0 give the canonical path as the name.
        if (name := item.region.removeprefix("/objects/")) in known
        for section in [FlatRange(item.address, item.size, name, item.offset)]
    ]
    if not sections:
        raise TargetError(
            f"{client.name}: QEMU shows no RAM in the address space of the guest"
        )
    if len(sections) > _MAX_SECTIONS:
        raise TargetError(
            f"{client.name}: QEMU shows {len(sections)} ranges of RAM, "
            f"expected at most {_MAX_SECTIONS}"
        )
    return sections


def open_ram(client: QmpChannel, found: RamMap) -> FileMemory | JoinedFiles:
    """
    Open the RAM of a VM.

    :param found: Where the guest's RAM is.
    :return: One file if there is one, else several as one.
    :raises TargetError: If neither shared files nor the process can be read.
    """
    processes = find_processes(client)
    problems: list[str] = []
    try:
        shared = _open_files(client, found, processes)
    except KmemdumpError as error:
        problems.append(str(error))
    else:
        if shared is not None:
            return shared
    for pid in processes:
        try:
            return _open_process(client, found.sections, pid)
        except KmemdumpError as error:
            problems.append(str(error))
    why = "; ".join(problems) or "its process is not known on this host"
    raise TargetError(
        f"{client.name}: cannot read the VM's RAM: {why}\n"
        "run as root (or with CAP_SYS_PTRACE), or start QEMU with "
        "-object memory-backend-file,share=on,mem-path=FILE,…"
    )


def _open_files(
    client: QmpChannel, found: RamMap, processes: Sequence[int]
) -> FileMemory | JoinedFiles | None:
    """Open the files that hold the RAM; None if only QEMU's process holds all of it."""
    names = dict.fromkeys(section.region for section in found.sections)
    for name in names:
        if found.backends[name] != "memory-backend-file":
            return None
        if not _get(client, name, "share"):
            return None
    with ExitStack() as opened:
        files = []
        for name in names:
            sections = [it for it in found.sections if it.region == name]
            file = _open_file(client, name, sections, processes)
            if file is None:
                return None
            files.append(opened.enter_context(closing(file)))
        opened.pop_all()
    return files[0] if len(files) == 1 else JoinedFiles(*files)


def _open_file(
    client: QmpChannel,
    name: str,
    sections: Sequence[FlatRange],
    processes: Sequence[int],
) -> FileMemory | None:
    """Open the file that is a backend's; None if only QEMU's process holds it."""
    path = str(_get(client, name, "mem-path"))
    try:
        # Since QEMU commit 4b870dc4d0c0 ("hostmem-file: add offset option") (8.1).
        offset = int(str(_get(client, name, "offset")))
    except (QmpCommandError, ValueError):
        offset = 0
    end = offset + max(section.offset + section.size for section in sections)
    problem = ""
    for candidate in _paths(path, processes):
        try:
            fd = os.open(candidate, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            problem = problem or f"{path}: {error.strerror}"
            continue
        status = os.fstat(fd)
        if not _may_write(client, status):
            os.close(fd)
            problem = (
                f"{path} is a file of user {status.st_uid}, and QEMU's socket is of "
                f"user {client.user}, who may not write it"
            )
            continue
        if not stat.S_ISREG(status.st_mode) or status.st_size < end:
            os.close(fd)
            if stat.S_ISDIR(status.st_mode):  # QEMU made an unnamed file there.
                return None
            problem = f"{path} has {status.st_size} bytes, expected {end} of RAM"
            continue
        extents = [
            Extent(section.address, section.size, offset + section.offset)
            for section in sections
        ]
        memory = FileMemory(fd, extents, f"RAM of {client.name} in {path}")
        if _is_ram_of(memory, client):
            return memory
        memory.close()
        problem = f"{path} does not hold what QEMU reads in the guest's memory"
    raise TargetError(problem)


def _may_write(client: QmpChannel, status: os.stat_result) -> bool:
    """Return whether the other end could have opened a file as RAM."""
    if client.user in (None, 0, status.st_uid) or stat.S_ISDIR(status.st_mode):
        return True
    return bool(status.st_mode & stat.S_IWOTH)


def _get(client: QmpChannel, backend: str, name: str) -> object:
    arguments = {"path": f"/objects/{backend}", "property": name}
    return client.execute("qom-get", arguments)


def _paths(path: str, processes: Sequence[int]) -> list[Path]:
    # The path as QEMU sees it, then as this process sees it: with the same mounts both
    # are one file.
    folder = "root" if path[:1] == "/" else "cwd"
    return [*(Path(f"/proc/{pid}/{folder}/{path}") for pid in processes), Path(path)]


def find_processes(client: QmpChannel) -> list[int]:
    """Return the ids of processes that may be QEMU, the likeliest first."""
    found = [client.peer] if client.peer > 0 else []
    # A manager may have made the socket for QEMU: look for the vCPU threads too.
    for cpu in _dicts(client.execute("query-cpus-fast"))[:1]:
        thread = cpu.get("thread-id")
        if not isinstance(thread, int):
            continue
        try:
            with open(f"/proc/{thread}/status", "rb") as status:
                match = re.search(rb"^Tgid:\s+(\d+)$", status.read(), re.M)
        except OSError:
            continue
        if match and int(match[1]) not in found and _is_its(client, int(match[1])):
            found.append(int(match[1]))
    return found


def _is_its(client: QmpChannel, pid: int) -> bool:
    """Return whether a process that the other end names may be its own."""
    return client.user in (None, 0) or user_of(pid) == client.user


def _open_process(
    client: QmpChannel, sections: Sequence[FlatRange], pid: int
) -> FileMemory:
    extents = []
    for section in sections:
        last = section.size - 1
        start = _host_address(client, section.address)
        if _host_address(client, section.address + last) != start + last:
            raise TargetError(
                f"RAM at {section.address:#x} is not contiguous in process {pid}"
            )
        extents.append(Extent(section.address, section.size, start))
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise TargetError(f"memory of process {pid}: {error.strerror}") from error
    memory = FileMemory(fd, extents, f"RAM of {client.name} in process {pid}")
    if not _is_ram_of(memory, client):
        memory.close()
        raise TargetError(
            f"process {pid} does not hold what QEMU reads in the guest's memory"
        )
    return memory


def _host_address(client: QmpChannel, address: int) -> int:
    answer = client.command_line(f"gpa2hva {address:#x}")
    match = re.search(r" is 0x([0-9a-f]{1,16})\s*$", answer)
    if match is None:
        raise TargetError(f"gpa2hva {address:#x}: QEMU says {answer.strip()[:200]!r}")
    return int(match[1], 16)


def _is_ram_of(memory: FileMemory, client: QmpChannel) -> bool:
    """Compare samples of *memory* with QEMU's own reads."""
    samples = []
    for extent in memory.extents:
        step = max(extent.size // _ADDRESSES, 4096) & -4096
        end = extent.address + extent.size
        for address in range(extent.address, end, step)[:_ADDRESSES]:
            count = min(_SAMPLE, end - address)
            try:
                data = memory.read(address, count)
            except NotCapturedError:
                return False
            samples.append((any(data), address, count))
    # Memory that is all zeros proves little: it comes last.
    samples.sort(key=lambda sample: not sample[0])
    return all(
        _is_same(memory, client, address, count)
        for _, address, count in samples[:_COMPARISONS]
    )


def _is_same(memory: FileMemory, client: QmpChannel, address: int, count: int) -> bool:
    before = memory.read(address, count)
    for _ in range(3):
        answer = client.command_line(f"xp /{count}xb {address:#x}")
        seen = bytes(
            int(byte, 16) for byte in re.findall(r" 0x([0-9a-f]{2})\b", answer)
        )
        after = memory.read(address, count)
        if seen in (before, after):
            return True
        if before == after:
            return False
        before = after
    return True  # The guest writes there all the time: it proves nothing.
