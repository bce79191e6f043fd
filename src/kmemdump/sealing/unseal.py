# SPDX-License-Identifier: GPL-2.0-or-later
"""Open what is sealed, into memory that no file system has."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from kmemdump.errors import FormatError, TargetError, UsageError
from kmemdump.files import OpenFile
from kmemdump.formats.sealed import CLEAR_LIMIT, Sealed, find_sealed
from kmemdump.sealing.library import key_lines, library, panics_as
from kmemdump.sealing.streams import Input, Output
from kmemdump.text import format_memory, printable, shell_command

__all__ = [
    "NoKeyError",
    "path_of_unsealed",
    "read_sealed",
    "unseal",
    "unseal_into",
]

_NAME = "kmemdump-unsealed"
_OPEN_FILES = "/proc/self/fd"
_MAX_HEADER, _MAX_STANZAS = 256 << 10, 1000
"""
Most bytes of age's own header, and recipients in it.

The library reads it again for each part that comes: a header of 1 MB takes an hour.
"""
_FOOTER, _STANZA = b"\n--- ", b"\n-> "
_SECRET = "AGE-SECRET-KEY-"
_BEGIN = "-----BEGIN "
_AGE = "age-encryption.org/"


class NoKeyError(UsageError):
    """
    A file is sealed, and no file of private keys was named.

    :param sealed: How, and what is said of it without a key.
    """

    def __init__(self, name: str, sealed: Sealed) -> None:
        super().__init__(
            f"{name}: is sealed, and there is no key to open it\n"
            "name a file of private keys with --identity FILE"
        )
        self.sealed = sealed


def read_sealed(file: OpenFile) -> Sealed | None:
    """
    Return how a file is sealed; ``None`` if it is not.

    :raises FormatError: As :func:`~kmemdump.formats.sealed.find_sealed`.
    """
    return find_sealed(file.read(0, CLEAR_LIMIT), file.name)


def unseal(file: OpenFile, sealed: Sealed, identities: Iterable[Path]) -> OpenFile:
    """
    Open a sealed file.

    What was sealed goes to a file in memory, which ends with the descriptor, and which
    nobody can write to.

    :param file: Stays open.
    :param identities: Files of private keys.
    :return: The file in memory, under the name of *file*.
    :raises NoKeyError: If there is no private key.
    :raises FormatError: If it is damaged, or sealed for others.
    :raises TargetError: If there is not enough memory.
    """
    room = _room()
    if file.size > room:
        raise TargetError(
            f"{file.name}: {format_memory(file.size)} sealed, and there are "
            f"{format_memory(room)} of memory for it\n"
            "--max-memory allows more; 'kmemdump unseal' writes it to a file"
        )
    fd = os.memfd_create(_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as output:
            unseal_into(output, file, sealed, identities)
        size = os.fstat(fd).st_size
        if not size:
            raise FormatError(file.name, "nothing is sealed in it")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
        found = OpenFile(Path(f"{_OPEN_FILES}/{fd}"))
    finally:
        os.close(fd)
    found.path, found.name = file.path, file.name
    return found


def path_of_unsealed(name: str) -> str | None:
    """
    Return a path by which this process can open what was unsealed in memory.

    :param name: What the kernel calls the file, which is no path.
    :return: ``None`` if it is another file, or not open.
    """
    if not name.startswith(f"/memfd:{_NAME}"):
        return None
    for number in os.listdir(_OPEN_FILES):
        path = f"{_OPEN_FILES}/{number}"
        with suppress(OSError):
            if os.readlink(path) == name:
                return path
    return None


def unseal_into(
    output: BinaryIO, file: OpenFile, sealed: Sealed, identities: Iterable[Path]
) -> None:
    """
    Write what is sealed in a file, as far as it is proven to be whole.

    :raises KmemdumpError: As :func:`unseal`, and what *output* raises.
    """
    keys = _read_identities(identities)
    if not keys:
        raise NoKeyError(file.name, sealed)
    where = f"{file.name}+{sealed.offset:#x}"
    size = max(min(file.size - sealed.offset, _MAX_HEADER), 0)
    head = file.read(sealed.offset, size)
    header, end, _ = head.partition(_FOOTER)
    if not end:
        raise FormatError(
            where,
            f"no end of age's header within {_MAX_HEADER} bytes: truncated, or damaged",
        )
    if (stanzas := header.count(_STANZA)) > _MAX_STANZAS:
        raise FormatError(
            where, f"sealed for {stanzas} recipients, expected at most {_MAX_STANZAS}"
        )
    pyrage = library()
    given, taken = Input(file, sealed.offset, head), Output(output)
    try:
        with panics_as(pyrage.DecryptError("a panic")):
            pyrage.decrypt_io(given, taken, keys)
    except Exception as error:
        for problem in (given.problem, taken.problem):
            if problem is not None:
                raise problem from error
        if not isinstance(error, pyrage.DecryptError | OSError):
            raise
        raise FormatError(file.name, _explain(str(error))) from error
    if sealed.clear is not None and sealed.clear.size != taken.size:
        raise FormatError(
            f"{file.name}: line 1",
            f"says that {sealed.clear.size} bytes are sealed, there are {taken.size}: "
            "somebody changed the line",
        )


def _explain(text: str) -> str:
    if "matching keys" in text.lower():
        return "sealed for other keys than the given ones"
    return f"damaged or truncated: {printable(text)}"


def _room() -> int:
    """Return how many bytes of memory there are for a file."""
    found, _ = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [found] if found != resource.RLIM_INFINITY else []
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) << 10)
    return min(limits, default=1 << 62)


def _read_identities(paths: Iterable[Path]) -> list[Any]:
    return [key for path in paths for key in _identities_of(path)]


def _identities_of(path: Path) -> Sequence[Any]:
    """Return the private keys in a file."""
    lines = [*key_lines(path)]
    pyrage = library()
    if not lines:
        raise UsageError(f"{path}: no keys, expected {_SECRET}… or an ssh private key")
    if lines[0].startswith(_AGE):
        raise UsageError(
            f"{path}: the key itself is sealed\n"
            f"let age open it: {shell_command('age', '-d', path)} | "
            "kmemdump … --identity /dev/stdin"
        )
    try:
        if lines[0].startswith(_BEGIN):
            return [pyrage.ssh.Identity.from_buffer("\n".join(lines).encode() + b"\n")]
        return [pyrage.x25519.Identity.from_str(line) for line in lines]
    except pyrage.IdentityError as error:
        # Its text never has the key itself.
        why = printable(str(error))
        raise UsageError(
            f"{path}: cannot be used: {why}; expected {_SECRET}… or an ssh private key "
            "without a passphrase\n"
            "for one with a passphrase, make a copy in memory: ssh-keygen -p"
        ) from error
