# SPDX-License-Identifier: GPL-2.0-or-later
"""
Folders of files to be written, without links that another user may have put there.

Root writes into folders in which others can write, too: a link in ``/tmp`` must not
lead it to overwrite a file elsewhere. The kernel's ``fs.protected_symlinks`` does that
for sticky folders, where a link is left to the kernel to follow.
"""

from __future__ import annotations

import errno
import os
import stat

from kmemdump.errors import OutputError

__all__ = ["open_folder", "open_folder_of"]

_MAX_LINKS = 40  # MAXSYMLINKS of include/linux/namei.h.
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_folder_of(path: str | os.PathLike[str]) -> tuple[int, str]:
    """
    Open the folder of a file, which need not exist, and return the file's name in it.

    Links are followed, a link under the file's own name, too.

    :return: A file descriptor of the caller's, and the name.
    :raises OutputError: If a link is another user's, and others can write where it is.
    :raises OSError: If there is no such folder.
    """
    text = os.fspath(path)
    names = text.split("/")[::-1]
    folder = os.open("/" if text.startswith("/") else ".", _PATH | os.O_DIRECTORY)
    links = 0
    try:
        while True:
            name = names.pop() if names else "."
            if name in ("", ".") and names:
                continue
            try:
                found = os.open(name or ".", _PATH, dir_fd=folder)
            except FileNotFoundError:
                if any(it not in ("", ".") for it in names):
                    raise
                return _reopened(folder), name
            status = os.fstat(found)
            if stat.S_ISLNK(status.st_mode):
                links += 1
                try:
                    target = _target(found, folder, f"{text}: {name}", links)
                finally:
                    os.close(found)
                names.extend(target.split("/")[::-1])
                if target.startswith("/"):
                    os.close(folder)
                    folder = os.open("/", _PATH | os.O_DIRECTORY)
                continue
            if not any(it not in ("", ".") for it in names):
                os.close(found)
                return _reopened(folder), name or "."
            os.close(folder)
            folder = found
    finally:
        os.close(folder)


def open_folder(path: str | os.PathLike[str]) -> int:
    """
    Open a folder in which files are to be written, and return its file descriptor.

    :raises OutputError: As :func:`open_folder_of`.
    :raises OSError: If there is no such folder.
    """
    parent, name = open_folder_of(path)
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
    finally:
        os.close(parent)


def _reopened(folder: int) -> int:
    return os.open(".", _FOLDER, dir_fd=folder)


def _target(link: int, folder: int, where: str, links: int) -> str:
    """Return where a link leads, if it may be followed."""
    if links > _MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    ours = (os.geteuid(), 0)
    owner, place = os.fstat(link).st_uid, os.fstat(folder)
    private = place.st_uid in ours and not place.st_mode & _WRITABLE
    if owner not in ours and not private:
        raise OutputError(
            f"cannot write {where} is a link of user {owner}, where others can write\n"
            "write to another folder, or name the file that it leads to"
        )
    return os.readlink("", dir_fd=link)
