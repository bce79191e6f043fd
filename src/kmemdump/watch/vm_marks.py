# SPDX-License-Identifier: GPL-2.0-or-later
"""What is marked of a VM's kernel, kept up to date while the kernel lives."""

from __future__ import annotations

from kmemdump.backends.vm import Dump, VmBackend
from kmemdump.errors import NotCapturedError
from kmemdump.marking.capture import Capture, look
from kmemdump.marking.registry import Registry
from kmemdump.marking.selection import Selection
from kmemdump.memory.ranges import merge
from kmemdump.targets import Target
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.liveness import KernelState, Liveness

__all__ = ["VmMarks"]

_MAX_BYTES = 256 << 20
"""Maximum size of the copy of each refresh."""


class VmMarks:
    """
    The marks of a VM's kernel.

    :param target: The VM; the caller closes it.
    :param selection: What to mark.
    :raises KmemdumpError: If there is no kernel to look at.
    """

    def __init__(self, target: Target, selection: Selection) -> None:
        self.target = target
        self.selection = selection
        self.capture: Capture = look(target, selection, packing=True)
        self.liveness = Liveness(self.capture.kernel)
        self.packed = self.capture.pack()
        """Symbols, types and unwind tables, which never change, compressed."""
        self._backend = VmBackend(target.memory, max_bytes=_MAX_BYTES)
        self.registry = Registry(target.memory.ranges)
        self.registry.attach(self._backend)
        self._register(self.capture)

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
        capture = look(self.target, self.selection, self.capture.kernel)
        liveness = Liveness(capture.kernel)
        self.capture, self.liveness = capture, liveness
        self._register(capture)

    def _register(self, capture: Capture) -> None:
        self.registry.update(capture.regions)
        self.copy: Dump = self._backend.dump()
        """The regions, with their memory at the last refresh."""
