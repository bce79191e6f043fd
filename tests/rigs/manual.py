# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the shell sessions of the README and the manual."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "KINDS", "PAGES", "ROOT", "Session", "read_block", "read_sessions"]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.rst") if path.parent.name != "man"),
]
KINDS = {
    "demo": "in a folder where 'make demo' was run",
    "vm": "beside vm.qmp, a VM that runs, and the examples of the manual",
    "watch": "the same; the VM dies when it is watched",
    "phone": "beside what a dead phone has left (tests/rigs/dead_phone.py)",
    "sealing": "beside key.txt, sealed.core and plain.core; the first makes the key",
    "dead": "beside vm.ram, the dead VM, its vmcore, vm.core and vmlinux",
    "arm": "beside phone.qmp, an Arm VM with firmware that dumps regions",
    "arm-dead": "beside what it left: dump, rawdump.img, and phone.sock, a device",
    "arm-demo": "where 'make demo BACKEND=minidump' works",
    "server-demo": "where 'make demo BACKEND=kdump' works",
}

_MARKER = re.compile(r" *(?:\.\.|<!--) session: ([\w-]+)(?:, status (\d))?(?: -->)?")
_CONSOLE = re.compile(r"( *)(?:\.\. code-block:: console|```console)")


@dataclass(frozen=True, slots=True)
class Session:
    """Commands and what they print."""

    page: str
    line: int
    kind: str
    status: int
    commands: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.kind}-{self.page}:{self.line}"


def read_sessions(page: Path) -> Iterator[Session]:
    marker: re.Match[str] | None = None
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if match := _MARKER.fullmatch(line):
            marker = match
        elif match := _CONSOLE.fullmatch(line):
            assert marker, f"{page}:{number}: a session without a marker"
            block = read_block(lines[number:], len(match[1]), "```" in line)
            name = str(page.relative_to(ROOT))
            kind, status = marker[1], int(marker[2] or 0)
            assert kind in KINDS, f"{page}:{number}: no kind {kind}"
            yield Session(name, number, kind, status, tuple(read_commands(block)))
            marker = None


def read_block(lines: list[str], indent: int, fenced: bool) -> list[str]:
    block: list[str] = []
    for line in lines:
        if line.strip() == "```" if fenced else line[: indent + 1].strip():
            break
        block.append(line[indent if fenced else indent + 3 :])
    return "\n".join(block).strip("\n").splitlines()


def read_commands(block: list[str]) -> Iterator[tuple[str, str]]:
    assert block[0].startswith("$ "), block[0]
    for text in "\n".join(block).removeprefix("$ ").split("\n$ "):
        lines = text.splitlines()
        last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        command, output = "\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :])
        yield command, output
