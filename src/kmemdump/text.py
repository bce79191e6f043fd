# SPDX-License-Identifier: GPL-2.0-or-later
"""Text for people: strings from outside that may be hostile, sizes, durations."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "c_string",
    "format_duration",
    "format_memory",
    "format_size",
    "no_such",
    "path_argument",
    "plain_console",
    "printable",
    "shell_command",
]


def printable(text: str, keep: str = "") -> str:
    r"""
    Return *text* with everything escaped that cannot be printed, as in ``\x1b``.

    Names, log lines and files may come from an attacker: the result neither controls a
    terminal nor looks different from its contents (hidden characters, right-to-left
    marks). A tab becomes a space.

    :param keep: Characters that are not escaped.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(char: str) -> str:
    return " " if char == "\t" else ascii(char)[1:-1]


def no_such(what: str, name: str, there: Iterable[str]) -> str:
    """Return that there is no such thing, and which one may have been meant."""
    near = get_close_matches(name, list(there), 1)
    guess = f", did you mean {near[0]}?" if near else ""
    return f"no {what} {name!r}{guess}"


def path_argument(path: PurePath) -> str:
    """Return a path as a program takes it, also if it begins like an option."""
    text = str(path)  # "./-i" is "-i" by now.
    return f"./{text}" if text.startswith("-") else text


def shell_command(*words: object) -> str:
    """
    Return a command to paste into a shell, whatever the words have in them.

    It is on one line, and nothing in it controls a terminal.
    """
    texts = (path_argument(it) if isinstance(it, PurePath) else str(it) for it in words)
    return " ".join(map(_quoted, texts))


def _quoted(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    # Of bash, zsh and ksh, and of POSIX since 2024.
    return f"$'{''.join(map(_shell_escape, text))}'"


def _shell_escape(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable():
        return char
    # Python has a byte of a file's name that is no UTF-8 as a surrogate.
    how = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", how))


def c_string(raw: bytes) -> str:
    """Return the text before the first NUL: ASCII, with other bytes escaped."""
    return raw.partition(b"\0")[0].decode("ascii", "backslashreplace")


def format_size(size: int) -> str:
    """Return the size of a file or of regions in bytes, as in ``7.2 MB``."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def format_memory(size: int) -> str:
    """Return an amount of RAM in bytes, in powers of two, as in ``498 MiB``."""
    if size < 1 << 20:
        return f"{-(-size // 1024)} KiB"
    mib = size / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def format_duration(seconds: float) -> str:
    """Return a duration, as in ``1 h 2 min 3 s``; below a minute ``59.9 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value)


def plain_console(**options: Any) -> Console:
    """
    Return a console that prints texts of kernels and users as they are.

    rich would take ``[x]`` in them for its markup, and ``52:ab:00`` for an emoji.

    :param options: Those of :class:`rich.console.Console`.
    """
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, **options)
