# SPDX-License-Identifier: GPL-2.0-or-later
"""Download debug files by their build id, with elfutils' client."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from kmemdump.errors import KmemdumpError
from kmemdump.installing import describe_install
from kmemdump.kernel.attach import debug_file_build_id

__all__ = ["SERVERS", "ask_debuginfod", "has_servers"]

SERVERS = "https://debuginfod.elfutils.org/"
"""Asks those of the distributions."""
_CLIENT = "debuginfod-find"
_BOUNDS = {"DEBUGINFOD_MAXSIZE": str(4 << 30), "DEBUGINFOD_MAXTIME": "3600"}
"""Bytes and seconds of a download, if the user sets no others: debuginfod-find(1)."""


def has_servers(environ: Mapping[str, str]) -> bool:
    """Return whether the user has named servers."""
    return bool(environ.get("DEBUGINFOD_URLS"))


def ask_debuginfod(
    build_id: str, environ: Mapping[str, str]
) -> tuple[Path | None, str]:
    """
    Ask the servers of ``DEBUGINFOD_URLS`` for a debug file.

    :param build_id: In hexadecimal.
    :param environ: The environment.
    :return: The file and an empty text, or ``None`` and the reason.
    """
    program = shutil.which(_CLIENT, path=environ.get("PATH"))
    if program is None:
        return None, f"{_CLIENT} is not installed ({describe_install(_CLIENT)})"
    # Hundreds of megabytes: the client shows its own progress.
    done = subprocess.run(
        (program, "debuginfo", build_id),
        env={"DEBUGINFOD_PROGRESS": "1", **_BOUNDS, **environ},
        umask=0o077,  # Of the cache, which other programs of this user share.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if os.isatty(2) else subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if done.returncode:
        lines = (done.stderr or "").strip().splitlines()
        return None, lines[-1] if lines else "no server has the file"
    path = Path(done.stdout.strip())
    try:
        found = debug_file_build_id(path)
    except KmemdumpError as error:
        return None, str(error)
    if found != build_id:
        return None, f"{path} is of build {found}, which a server gave for it"
    return path, ""
