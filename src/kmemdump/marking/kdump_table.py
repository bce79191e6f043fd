# SPDX-License-Identifier: GPL-2.0-or-later
"""This machine's list for its crash kernel: made, locked, and open for writing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kmemdump.backends.kdump import KdumpBackend
from kmemdump.errors import UsageError
from kmemdump.marking.lock import lock_table, table_name
from kmemdump.memory.ranges import Range
from kmemdump.targets import Closing, Target
from kmemdump.targets.huge_page import open_huge_page
from kmemdump.targets.live import LiveTarget

__all__ = ["KdumpTable"]


class KdumpTable(Closing):
    """
    This machine's list for its crash kernel, as a registration needs it.

    :param target: This machine; the caller closes it.
    :param lock_folder: For a lock that lets one process write at a time; ``None`` takes
        no lock.
    :raises UsageError: If it is another machine.
    :raises KmemdumpError: If there is no memory for the list, or another process has
        it.
    """

    def __init__(self, target: Target, lock_folder: Path | None = None) -> None:
        if not isinstance(target, LiveTarget):
            raise UsageError(
                f"{target.name}: has a crash kernel of its own, expected live: mark it "
                "from inside"
            )
        with ExitStack() as stack:
            self._page = open_huge_page()
            stack.callback(self._page.close)
            self.range = self._page.range
            """Where the list is."""
            self.name = table_name(target.name, KdumpBackend.name, self.range.start)
            """For file names."""
            self.reserved: Sequence[Range] = ()
            """None: the list is in a page of its own, and no region may be in it."""
            stack.enter_context(lock_table(lock_folder, self.name))
            self._resources = stack.pop_all()

    def open_backend(self) -> KdumpBackend:
        """
        Return a backend for the list; the one of an earlier run stays meanwhile.

        :raises BackendError: If the page cannot be used.
        """
        return KdumpBackend(self._page, self.range)

    def withdraw(self) -> None:
        """Remove the list, also one of an earlier run."""
        self.open_backend().withdraw()
        self._page.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close and unlock the list; the regions stay in it."""
        self._resources.close()
