# SPDX-License-Identifier: GPL-2.0-or-later
"""Seal: who can open it, and the file that is written."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from kmemdump.errors import UsageError
from kmemdump.files import PartialFile
from kmemdump.formats.sealed import ClearLine, DeathTags
from kmemdump.sealing.library import key_lines, library, panics_as
from kmemdump.sealing.streams import Output
from kmemdump.text import printable

__all__ = ["Seal", "make_seal", "sealed_output"]

_AGE, _SSH = "age1", "ssh-"
_MAX_RECIPIENTS = 256
"""With keys of RSA, they take most of the header that is read again."""
_KEYS = "age1…, ssh-ed25519 …, ssh-rsa …, or a file of such lines"


@dataclass(frozen=True, slots=True)
class Seal:
    """How core images are sealed; :func:`make_seal` makes one."""

    recipients: tuple[str, ...]
    """Public keys, as text."""
    show_cause: bool = False
    """Whether the cause of a death, and its signature, are readable without a key."""
    tags: DeathTags | None = None
    """Those of the death that the next core image is of."""

    def keys(self) -> list[Any]:
        """
        Return the recipients as the library has them.

        :raises UsageError: If one of them is no key that it knows.
        :raises UnsupportedError: If it is not installed.
        """
        return [_parse(text) for text in self.recipients]

    def and_for(self, recipients: Iterable[str]) -> Seal:
        """Return how to seal for these, too."""
        return replace(self, recipients=(*self.recipients, *recipients))


def make_seal(given: Iterable[str], *, show_cause: bool = False) -> Seal:
    """
    Return how to seal for recipients.

    :param given: Public keys of age or ssh, or paths of files with one in each line.
    :param show_cause: As in :class:`Seal`.
    :raises UsageError: If one of them is neither, or if there is none.
    :raises UnsupportedError: If the package that seals is not installed.
    """
    found: dict[str, None] = {}
    for text in given:
        if text.startswith((_AGE, _SSH)):
            found[text.strip()] = None
            continue
        before = len(found)
        for line in key_lines(Path(text)):
            if not line.startswith((_AGE, _SSH)):
                raise _wrong(line, f"{text}: ")
            found[line] = None
        if len(found) == before:
            raise UsageError(f"{text}: no keys, expected lines as age1… or ssh-ed25519")
    if not found:
        raise UsageError(f"sealing: no recipient, expected {_KEYS}")
    if len(found) > _MAX_RECIPIENTS:
        raise UsageError(
            f"sealing: {len(found)} recipients, expected at most {_MAX_RECIPIENTS}"
        )
    seal = Seal(tuple(found), show_cause)
    seal.keys()
    return seal


def _parse(text: str) -> Any:
    pyrage = library()
    try:
        with panics_as(_wrong(text)):
            if text.startswith(_SSH):
                # Without the comment behind it.
                return pyrage.ssh.Recipient.from_str(" ".join(text.split()[:2]))
            return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        if "ModulusTooLarge" in str(error):
            raise UsageError(
                f"{_shown(text)} has too many bits, expected 4096 at most"
            ) from error
        raise _wrong(text) from error


def _wrong(text: str, where: str = "") -> UsageError:
    if "SECRET" in text or "PRIVATE" in text:
        # Do not print it.
        return UsageError(
            f"{where}is a secret key, expected a public one: {_KEYS}\n"
            "age-keygen -y prints the public key of a file"
        )
    return UsageError(f"{where}{_shown(text)} is no key to seal for, expected {_KEYS}")


def _shown(text: str) -> str:
    return repr(printable(text if len(text) <= 40 else f"{text[:37]}…"))


@contextmanager
def sealed_output(
    path: str | PathLike[str], seal: Seal, clear: ClearLine
) -> Iterator[BinaryIO]:
    """
    Write a sealed file, which gets its name when it is whole.

    What the body of the ``with`` statement writes stays in memory; it is sealed, and
    reaches the disk, when the body has succeeded.

    :param clear: The line before it; its size is filled in.
    :raises OutputError: If *path* cannot be written.
    """
    keys: Sequence[Any] = seal.keys()
    with PartialFile(path) as output:  # First: whether it can be written shows now.
        plain = _Buffer()
        yield plain
        size = len(plain.getbuffer())
        output.write(clear._replace(size=size).pack())
        plain.seek(0)
        checked = Output(output)
        pyrage = library()
        try:
            pyrage.encrypt_io(plain, checked, keys)
        except pyrage.EncryptError:
            if checked.problem is not None:
                raise checked.problem from None
            raise


class _Buffer(io.BytesIO):
    """A file in memory, which ``truncate()`` lengthens as it does one on a disk."""

    def truncate(self, size: int | None = None, /) -> int:
        wanted = self.tell() if size is None else size
        super().truncate(wanted)
        lacking = wanted - len(self.getbuffer())
        if lacking > 0:
            place = self.seek(0, io.SEEK_CUR)
            self.seek(0, io.SEEK_END)
            self.write(bytes(lacking))
            self.seek(place)
        return wanted
