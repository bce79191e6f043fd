# SPDX-License-Identifier: GPL-2.0-or-later
"""What is marked of a VM's kernel, kept up to date while the kernel lives."""

from __future__ import annotations

from collections.abc import Callable

from kmemdump.backends.vm import Dump, VmBackend
from kmemdump.errors import FormatError, NotCapturedError, UnsupportedError
from kmemdump.kernel.build_cache import BuildCache
from kmemdump.marking.again import look_again
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.free_memory import free_memory
from kmemdump.marking.registry import Registry
from kmemdump.marking.selection import Selection
from kmemdump.memory.ranges import merge
from kmemdump.targets import Target
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.answers import Answers
from kmemdump.watch.boot import Boot, find_boot
from kmemdump.watch.liveness import KernelState, Liveness
from kmemdump.watch.log_liveness import LogLiveness
from kmemdump.watch.progress import Progress

__all__ = ["VmMarks", "is_later"]

_MAX_BYTES = 256 << 20
"""Maximum size of the copy of each refresh."""
_SEARCHES = 3
"""How often the kernel's symbols and types are looked for, before the log suffices."""
_MAX_TICKS = 60_000  # A minute, at the highest CONFIG_HZ.


def is_later(before: int, now: int) -> bool:
    """Return whether a kernel's clock, in jiffies, moved on, and not to anything."""
    return 0 < now - before <= _MAX_TICKS


class VmMarks:
    """
    The marks of a VM's kernel.

    :param target: The VM; the caller closes it.
    :param selection: What to mark.
    :param builds: What kernels of one build share.
    :raises KmemdumpError: If there is no kernel to look at.
    """

    def __init__(
        self, target: Target, selection: Selection, builds: BuildCache | None = None
    ) -> None:
        self.target = target
        self.selection = selection
        self.capture: Capture = look(
            target, selection, packing=True, builds=builds, again=True
        )
        self.liveness: Liveness | LogLiveness
        self.lacking: str | None
        """What it lacks, so that its state is known from its log."""
        self.liveness, self.lacking = self._find_liveness(self.capture)
        self.progress = Progress(self.capture.kernel)
        self.boot: Boot = find_boot(self.capture.kernel)
        """Tells this kernel from the next one."""
        self._searches = 1
        self.packed = self.capture.pack()
        """Symbols, types and unwind tables, which never change, compressed."""
        self._backend = VmBackend(target.memory, max_bytes=_MAX_BYTES)
        # Without ranges: they may change, and a capture has regions in memory only.
        self.registry = Registry()
        self.registry.attach(self._backend)
        self.answers = Answers()
        self._register(self.capture)
        free_memory()

    @property
    def info(self) -> VmcoreInfo:
        """The VMCOREINFO of the kernel."""
        return self.capture.kernel.vmcoreinfo

    @property
    def size(self) -> int:
        """Size of the regions in bytes."""
        return sum(item.size for item in merge(item.range for item in self.registry))

    @property
    def packed_size(self) -> int:
        """Size of what never changes, in bytes, compressed."""
        return len(self.packed.debug_info) + len(self.packed.memory)

    def read_kernel(self) -> KernelState | None:
        """Return the kernel's state, or None if its memory is gone."""
        try:
            return self.liveness.read(self.target.memory)
        except NotCapturedError:
            return None

    def refresh(self) -> None:
        """
        Mark again what changed.

        :raises KmemdumpError: If that fails; the marks made before stay.
        """
        if self.lacking is not None and self._searches < _SEARCHES:
            self._searches += 1
            capture = look(self.target, self.selection, again=True)
        else:
            capture = look_again(self.capture, self.target, self.selection)
        if self.answers.find_lost(capture).keys() - self.answers.lost.keys():
            # Maybe the kernel was changing a list just then.
            known = capture.kernel
            capture = look(self.target, self.selection, known, again=True)
            del known  # Large.
        if self.lacking is None:
            self.liveness = Liveness(capture.kernel)
        else:
            self.liveness, self.lacking = self._find_liveness(capture)
            if self.lacking is None:
                self.packed = capture.pack()
        self.progress = Progress(capture.kernel)
        self.capture = capture
        self._register(capture)
        free_memory()

    def clock_watch(self) -> Callable[[], bool]:
        """
        Return a function that checks if the kernel's clock has moved since this call.

        After a reset, all of a kernel may still be in memory; it stands still, or the
        next one overwrites it.
        """
        memory, liveness, progress = self.target.memory, self.liveness, self.progress
        before = progress.jiffies(memory)
        if before is None and isinstance(liveness, LogLiveness):
            return liveness.clock_watch(memory)

        def has_moved() -> bool:
            now = progress.jiffies(memory)
            if before is None or now is None:
                return True  # There is no clock to read.
            return is_later(before, now) and liveness.read(memory).same

        return has_moved

    def _find_liveness(
        self, capture: Capture
    ) -> tuple[Liveness, None] | tuple[LogLiveness, str]:
        try:
            return Liveness(capture.kernel), None
        except UnsupportedError as error:
            try:
                found = LogLiveness(capture.kernel.vmcoreinfo, self.target.memory)
            except (FormatError, NotCapturedError) as of_log:
                raise UnsupportedError(f"{error}; nor its log: {of_log}") from error
            own = capture.kernel.own_debug_info.found
            return found, (own.lacks if own is not None else "") or str(error)

    def _register(self, capture: Capture) -> None:
        self.registry.update(self.answers.take(capture))
        self.copy: Dump = self._backend.dump()
        """The regions, with their memory at the last refresh."""
