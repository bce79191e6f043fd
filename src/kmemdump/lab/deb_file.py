# SPDX-License-Identifier: GPL-2.0-or-later
"""One file out of a Debian package, of which the others would take a gigabyte."""

import shutil
import subprocess
import tarfile
from collections.abc import Container
from pathlib import Path
from typing import IO

from kmemdump.errors import OutputError, UnsupportedError
from kmemdump.lab.commands import ENDS_WITH_US

__all__ = ["extract_file"]

_BUFFER = 1 << 20


def extract_file(deb: Path, places: Container[str], target: Path) -> bool:
    """
    Extract the first regular file at any of some places; the others may be links to it.

    :param places: Paths in the package, as ``./usr/bin/env``.
    :param target: Made new. Whole, or the call fails.
    :return: Whether there is one.
    :raises UnsupportedError: If the package is damaged.
    :raises OutputError: If the file cannot be written.
    """
    command = [*ENDS_WITH_US, "dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as unpacker:
        assert unpacker.stdout is not None
        try:
            return _extract(unpacker.stdout, places, target)
        except tarfile.TarError as e:  # Also if it ends too early.
            raise UnsupportedError(f"{deb.name}: is damaged: {e}") from e
        except OSError as e:
            raise OutputError(f"{deb.name}: cannot be unpacked: {e.strerror}") from e
        finally:
            unpacker.kill()  # What comes after the file is not read.


def _extract(stream: IO[bytes], places: Container[str], target: Path) -> bool:
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER) as archive:
        for member in archive:
            if member.isfile() and member.name in places:
                content = archive.extractfile(member)
                assert content is not None
                with open(target, "wb") as file:
                    shutil.copyfileobj(content, file, _BUFFER)
                return True
    return False
