# SPDX-License-Identifier: GPL-2.0-or-later
"""
What kernels of one build have in common, once for all processes of a user.

A build is known by the bytes from which its symbols and types were read: whoever finds
them has read the same in his kernel's memory. So a guest that lies about its build
harms no other.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmemdump.errors import FormatError, KmemdumpError
from kmemdump.formats.btf import Btf, BtfKind
from kmemdump.formats.columns import Columns, read_columns, write_columns
from kmemdump.formats.packing import compress
from kmemdump.formats.symbols import SymbolTable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Build", "BuildCache", "digest_of"]

_KERNEL = 1 << 63
"""Kernel addresses begin above it, also of symbols that precede ``_stext`` on arm64."""
_VERSION = 2
_MAX_SIZE = 64 << 20
"""Bytes of a file; builds have 11 to 17 MB."""
_BUILDS, _STREAMS = 8, 32
"""Most files; the ones not used for longest go first."""
_IN_MEMORY = 4
"""Most builds whose types a process keeps; each takes some 10 MB."""


def digest_of(*parts: ReadableBuffer) -> str:
    """Return a name for bytes that no other bytes have."""
    digest = hashlib.blake2b(digest_size=20)
    for part in parts:
        digest.update(len(memoryview(part).cast("B")).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Build:
    """Symbols and types of a kernel at a place."""

    symbols: SymbolTable
    btf: Btf
    start: int
    """Start of the image; smaller addresses are per-CPU offsets."""
    end: int
    per_cpu: Mapping[str, int]
    btf_digest: str
    """:func:`digest_of` the bytes that the types were read from."""


class BuildCache:
    """
    Files of builds.

    :param folder: This user's own; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._types: dict[tuple[str, str], Btf] = {}
        """
        Of builds that were found: looking a name up costs once. A guest that lies may
        have another one's symbols, with types of its own.
        """

    def find(self, key: str, place: int) -> Build | None:
        """
        Return a build that is known.

        :param key: :func:`digest_of` the tables of its symbols.
        :param place: Address of these tables; others differ by as much.
        """
        path = self._path(key, ".build")
        try:
            file = read_columns(path)
            name = (key, str(file.about["btf_digest"]))
            found = _build(file, place, self._types.get(name))
        except (OSError, FormatError, LookupError, TypeError, ValueError):
            return None  # It is not there, or another version's.
        except OverflowError:
            return None  # No kernel lies there.
        with contextlib.suppress(OSError):
            os.utime(path)
        self._types.pop(name, None)  # The one used last comes last.
        self._types[name] = found.btf
        if len(self._types) > _IN_MEMORY:
            del self._types[next(iter(self._types))]
        return found

    def add(self, key: str, place: int, build: Build) -> Build:
        """Keep a build; return it as :meth:`find` does, or as it was if that fails."""
        symbols, btf = build.symbols, build.btf
        symbols.find_offsets()
        about = {
            "version": _VERSION,
            "place": place,
            "start": build.start,
            "end": build.end,
            "per_cpu": dict(build.per_cpu),
            "btf_digest": build.btf_digest,
            "listed": {kind.name: ids for kind, ids in btf.listed.items()},
        }
        columns: dict[str, Any] = {
            "names": symbols.names,
            "info": symbols.info,
            "addresses": symbols.addresses,
            "sizes": symbols.sizes,
            "offsets": symbols.offsets,
            "by_name": symbols.by_name or b"",
            "types": btf.types,
            "strings": btf.strings,
            "type_places": btf.places,
            "named": btf.named,
        }
        if sum(len(memoryview(it).cast("B")) for it in columns.values()) > _MAX_SIZE:
            return build
        try:
            self._make_room(".build", _BUILDS)
            write_columns(self._path(key, ".build"), about, columns)
        except (KmemdumpError, OSError):
            return build  # It costs memory and time, no more.
        return self.find(key, place) or build

    def compress(self, data: bytes) -> bytes:
        """Compress data as :func:`~kmemdump.formats.packing.compress` does, once."""
        path = self._path(digest_of(data), ".stream")
        with contextlib.suppress(OSError, FormatError, KeyError):
            stream = read_columns(path).columns["stream"][:]
            os.utime(path)
            return stream
        stream = compress(data)
        with contextlib.suppress(OSError, KmemdumpError):
            self._make_room(".stream", _STREAMS)
            write_columns(path, {}, {"stream": stream})
        return stream

    def _path(self, key: str, suffix: str) -> Path:
        return self._folder / f"{key}{suffix}"

    def _make_room(self, suffix: str, most: int) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._folder.stat().st_uid != os.geteuid():
            raise PermissionError(f"{self._folder} is another user's")
        files = []
        for path in self._folder.glob(f"*{suffix}"):
            with contextlib.suppress(OSError):
                files.append((path.stat().st_mtime, path))
        for _, path in sorted(files)[: max(len(files) - most + 1, 0)]:
            path.unlink(missing_ok=True)  # Who has mapped it keeps it.


def _build(file: Columns, place: int, types: Btf | None) -> Build:
    about, columns = file.about, file.columns
    if about["version"] != _VERSION:
        raise ValueError(about["version"])
    start, shift = about["start"], place - about["place"]
    names, by_name = columns["names"], file.numbers("by_name", "I")
    addresses: Sequence[int] = file.numbers("addresses", "Q")
    if shift:  # Per-CPU offsets and other small numbers stay as they are.
        first = bisect_left(addresses, _KERNEL)
        moved = array("Q", addresses[:first])
        moved.extend(map(shift.__add__, addresses[first:]))
        addresses = moved
    symbols = SymbolTable(
        # Without an order, they are searched, which is slow in a file that is mapped.
        names if by_name else names[:],
        columns["info"],
        addresses,
        file.numbers("sizes", "I"),
        file.numbers("offsets", "I"),
        by_name,
    )
    btf = types or Btf(
        columns["types"],
        columns["strings"],
        "BTF in the kernel's memory",
        None,
        file.numbers("type_places", "I"),
        file.numbers("named", "Q"),
        {BtfKind[name]: ids for name, ids in about["listed"].items()},
    )
    return Build(
        symbols,
        btf,
        start + shift,
        about["end"] + shift,
        about["per_cpu"],
        about["btf_digest"],
    )
