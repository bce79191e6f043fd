# SPDX-License-Identifier: GPL-2.0-or-later
"""A file as a kernel's module is one, built by gcc, and what binutils say of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

__all__ = ["BuiltModule", "build_module_file", "needs_compiler"]

needs_compiler = pytest.mark.skipif(
    not all(map(shutil.which, ("gcc", "ld", "addr2line"))), reason="needs gcc"
)

_SOURCE = """\
void ud(int x) { volatile int y = x; (void) y; }

int outer(int x)
{
\tud(x);
\tx++;
\tud(x + {number});
\treturn x;
}

int next(void) { return 1; }

static inline __attribute__((always_inline)) int part(int x)
{
\tud(x);
\treturn x * 2;
}

int whole(int x)
{
\tud(x + 2);
\tx = part(x);
\treturn x + 1;
}

__attribute__((section(".text.unlikely"))) int seldom(int x)
{
\tud(x);
\treturn outer(x);
}
"""


class BuiltModule:
    """
    A module, as binutils see it.

    :param prefix: Of the names of their programs.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self.path = path
        self._prefix = prefix

    def run(self, *argv: str) -> str:
        """Return what a program of binutils prints of the file."""
        argv = (f"{self._prefix}{argv[0]}", *argv[1:], str(self.path))
        done = subprocess.run(argv, capture_output=True, check=True, text=True)
        return done.stdout

    @property
    def build_id(self) -> str:
        """Its build id, in hexadecimal."""
        found = re.search(r"Build ID: (\w+)", self.run("readelf", "-n"))
        assert found is not None
        return found[1]

    def symbol(self, name: str) -> tuple[str, int, int]:
        """Return section, offset in it, and size of a function."""
        shown = self.run("objdump", "-t")
        line = rf"^(\w+) .{{7}} (\.\S+)\t(\w+)(?: \.hidden)? {re.escape(name)}$"
        found = re.search(line, shown, re.M)
        assert found is not None, name
        return found[2], int(found[1], 16), int(found[3], 16)

    def printed_size(self, name: str) -> int:
        """Return the bytes from a function to the next one in its section."""
        section, start, _ = self.symbol(name)
        shown = self.run("objdump", "-t")
        line = rf"^(\w+) .{{7}} {re.escape(section)}\t\w+(?: \.hidden)? \S+$"
        starts = sorted(int(found, 16) for found in re.findall(line, shown, re.M))
        return min(it for it in starts if it > start) - start

    def lines(self, name: str, offsets: Iterable[int]) -> list[str]:
        """
        Return ``FILE:LINE`` of places in a function, without folders.

        They are the function's own, not those of what is inlined there.
        """
        return [places[-1][1] for places in self.inlined(name, offsets)]

    def inlined(self, name: str, offsets: Iterable[int]) -> list[list[tuple[str, str]]]:
        """Return functions and lines of places: the innermost first, then itself."""
        section, start, _ = self.symbol(name)
        places = [f"{start + offset:#x}" for offset in offsets]
        options = ("-a", "-f", "-i", "-s", "-j", section)
        shown = self.run("addr2line", *options, *places, "-e")
        found = []
        for each in re.split(r"^0x\w+\n", shown, flags=re.M)[1:]:
            words = [line.partition(" ")[0] for line in each.splitlines()]
            found.append(list(zip(words[::2], words[1::2], strict=True)))
        return found


def build_module_file(path: Path, number: int = 1) -> BuiltModule:
    """Build a module; another number makes another build."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.with_suffix(".c")
    source.write_text(_SOURCE.replace("{number}", str(number)))
    objects = path.with_suffix(".o")
    options = ("-g", "-O0", "-fcf-protection=none", "-falign-functions=64")
    subprocess.run(("gcc", *options, "-c", source, "-o", objects), check=True)
    subprocess.run(("ld", "-r", "--build-id=sha1", objects, "-o", path), check=True)
    objects.unlink()
    return BuiltModule(path)
