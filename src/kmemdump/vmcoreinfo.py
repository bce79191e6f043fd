# SPDX-License-Identifier: GPL-2.0-or-later
"""
VMCOREINFO: a kernel's description of itself for readers of its memory.

Lines of ``KEY=value``; the keys are listed in the kernel's
Documentation/admin-guide/kdump/vmcoreinfo.rst. The kernel keeps them as an ELF
note in its memory, where :mod:`kmemdump.kernel_search.notes`
finds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.text import printable

__all__ = ["RELEASE_LIMIT", "VMCOREINFO_LIMIT", "VmcoreInfo"]

VMCOREINFO_LIMIT = 1 << 20
"""Most bytes that are parsed; the kernel's own limit is one page, 4 to 64 KiB."""

RELEASE_LIMIT = 64
"""Most characters of a release: ``__NEW_UTS_LEN`` of the kernel's utsname.h."""

_LINE = re.compile(r"([A-Za-z0-9_.-]+(?:\([^()=\s]{1,256}\))?)=(.*)")
_HEX = re.compile(r"-?(?:0[xX])?[0-9a-fA-F]{1,16}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class VmcoreInfo:
    """The parsed lines of a VMCOREINFO."""

    raw: bytes
    """As the kernel wrote it, without padding."""
    source: str = field(compare=False)
    """Where it was found, for messages."""
    values: dict[str, str] = field(repr=False, compare=False)
    """Key to value; of equal keys the last one counts, as in drgn."""

    @classmethod
    def parse(cls, raw: bytes, source: str) -> VmcoreInfo:
        """
        Parse the text of a VMCOREINFO: from a note, or from a user's file.

        Lines other than ``KEY=value`` are ignored, as debuggers do.

        :param source: Name of the input, for messages.
        :raises FormatError: If it is too large, is not text, or names no kernel.
        """
        if len(raw) > VMCOREINFO_LIMIT:
            raise FormatError(
                source,
                f"{len(raw)} bytes of VMCOREINFO, expected at most {VMCOREINFO_LIMIT}",
            )
        raw = raw.rstrip(b"\0")
        try:
            text = raw.decode("ascii")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{source}+{error.start:#x}",
                f"byte {raw[error.start]:#04x}, expected VMCOREINFO text (ASCII)",
            ) from None
        values: dict[str, str] = {}
        for line in text.split("\n"):
            match = _LINE.fullmatch(line.removesuffix("\r"))
            if match:
                values[match[1]] = match[2]
        if not values.get("OSRELEASE"):
            raise FormatError(source, "no line OSRELEASE=, expected VMCOREINFO")
        return cls(raw, source, values)

    def with_lines(self, lines: Mapping[str, str]) -> VmcoreInfo:
        """
        Return this with further lines at the end, which outrank earlier ones.

        :param lines: Key to value.
        """
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        raw = self.raw if self.raw.endswith(b"\n") else self.raw + b"\n"
        return VmcoreInfo.parse(raw + text.encode("ascii"), self.source)

    @property
    def osrelease(self) -> str:
        """
        Kernel release, as ``uname -r`` prints it; longer ones are cut.

        What no kernel has in it, and a terminal might obey, is escaped.
        """
        return printable(self.values["OSRELEASE"][:RELEASE_LIMIT])

    @property
    def build_id(self) -> str | None:
        """Build ID of vmlinux in hexadecimal; None before Linux 5.9."""
        # Since Linux kernel commit 0935288c6e00 ("kdump: append kernel build-id
        # string to VMCOREINFO") (in v5.9).
        value = self.values.get("BUILD-ID", "").strip().lower()
        return value if re.fullmatch(r"(?:[0-9a-f]{2}){1,64}", value) else None

    @property
    def page_size(self) -> int:
        """``PAGE_SIZE`` in bytes."""
        return self._number("PAGESIZE", 10)

    @property
    def kernel_offset(self) -> int:
        """How far KASLR moved the kernel's virtual addresses, in bytes."""
        return self._number("KERNELOFFSET", 16)

    def symbol(self, name: str) -> int:
        """
        Return ``SYMBOL(name)``, an unsigned 64-bit address.

        :raises NotCapturedError: If there is no such line.
        """
        return self._number(f"SYMBOL({name})", 16) % (1 << 64)

    def number(self, name: str) -> int:
        """
        Return ``NUMBER(name)``; the kernel prints some of them in hexadecimal.

        :raises NotCapturedError: If there is no such line.
        """
        return self._number(f"NUMBER({name})", 10)

    def size(self, name: str) -> int:
        """
        Return ``SIZE(name)`` in bytes.

        :raises NotCapturedError: If there is no such line.
        """
        return self._number(f"SIZE({name})", 10)

    def offset(self, name: str) -> int:
        """
        Return ``OFFSET(name)`` in bytes.

        :raises NotCapturedError: If there is no such line.
        """
        return self._number(f"OFFSET({name})", 10)

    def length(self, name: str) -> int:
        """
        Return ``LENGTH(name)`` in elements.

        :raises NotCapturedError: If there is no such line.
        """
        return self._number(f"LENGTH({name})", 10)

    def _number(self, key: str, base: int) -> int:
        value = self.values.get(key)
        if value is None:
            raise NotCapturedError(f"{self.source}: VMCOREINFO has no line {key}=")
        value = value.strip()
        if base == 10 and value[:2].lower() == "0x":
            base = 16
        pattern = _HEX if base == 16 else _DECIMAL
        if not pattern.fullmatch(value):
            raise FormatError(
                self.source, f"{key}={value[:40]!r}, expected a number of base {base}"
            )
        return int(value, base)
