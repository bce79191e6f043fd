# SPDX-License-Identifier: GPL-2.0-or-later
"""
A page of memory for a process that :mod:`multiprocessing` starts.

Verbs fork by themselves, and need not wait until that is loaded.
"""

from __future__ import annotations

from multiprocessing.reduction import DupFd
from typing import Any

from kmemdump.bounds.page import StatePage

__all__ = ["SharedPage"]


class SharedPage(StatePage):
    """A page that is passed to a process that multiprocessing starts."""

    def __reduce__(self) -> Any:
        return _open_page, (DupFd(self.fd),)


def _open_page(fd: Any) -> SharedPage:
    return SharedPage(fd.detach())
