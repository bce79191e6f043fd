# SPDX-License-Identifier: GPL-2.0-or-later
"""
The key of a folder of core images, by which its owner tells their deaths apart.

Whoever writes sealed core images cannot read them, but has to know which of them are of
one machine and of one cause: some are deleted, and no death is written twice. So their
clear lines have tags, which are the same for the same text. Without the key of the
folder, nobody can find out the text by trying.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from kmemdump.errors import KmemdumpError
from kmemdump.files import PartialFile, read_own_file
from kmemdump.formats.sealed import DeathTags

__all__ = ["FolderKey"]

_NAME = ".kmemdump.key"
_BYTES = 32
_TAG_BYTES = 16


class FolderKey:
    """
    The key of a folder.

    :param folder: It may vanish and come back.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._key = b""
        self._spare = b""

    @property
    def known(self) -> bool:
        """Whether there is a key."""
        if not self._key:
            with suppress(OSError):
                key = read_own_file(self._path, _BYTES + 1) or b""
                self._key = key if len(key) == _BYTES else b""
        return bool(self._key)

    def make(self) -> None:
        """Make the key if there is none; others must not do that at the same time."""
        # One that is there and cannot be read now is the key of other core images.
        if self.known or self._is_there():
            return
        # Writing a core image will say what is wrong.
        with suppress(KmemdumpError), PartialFile(self._path) as file:
            file.write(os.urandom(_BYTES))

    def _is_there(self) -> bool:
        try:
            return self._path.stat().st_size == _BYTES
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def hide(self) -> None:
        """
        Let no tag be its text from now on.

        As long as there is no key, tags are of this process alone.
        """
        self._spare = self._spare or os.urandom(_BYTES)

    def tag(self, text: str) -> str:
        """Return the tag of a text; the text itself if there is no key."""
        key = self._key if self.known else self._spare
        if not text or not key:
            return text
        digest = hashlib.blake2b(text.encode(), key=key, digest_size=_TAG_BYTES)
        return digest.hexdigest()

    def tags(self, machine: str, cause: str, id: str) -> DeathTags | None:
        """Return the tags of a death; ``None`` if there is no key."""
        if not self.known:
            return None
        return DeathTags(self.tag(machine), self.tag(cause), self.tag(id))
