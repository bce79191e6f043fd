# SPDX-License-Identifier: GPL-2.0-or-later
"""A collected dump as a target: what firmware left, to be asked like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kmemdump.arch.architecture import get_arch
from kmemdump.errors import KmemdumpError
from kmemdump.firmware_dumps.assemble import Collected
from kmemdump.memory.physical import Alias
from kmemdump.targets.file import FileTarget
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["DumpTarget"]

logger = logging.getLogger(__name__)

_ADDRESS_END = 1 << 64
_IMAGE_SIZE = 128 << 20
"""Most kernels' images are smaller."""


class DumpTarget(FileTarget):
    """
    What firmware left of a kernel.

    :param vmcoreinfo: To be used instead of what the dump has.
    """

    def __init__(
        self, collected: Collected, vmcoreinfo: VmcoreInfo | None = None
    ) -> None:
        super().__init__(
            collected.source,
            collected.machine,
            collected.memory,
            collected.notes,
            vmcoreinfo,
        )
        self.collected = collected
        for problem in collected.problems:
            logger.info("%s: %s", collected.source, problem)

    @property
    def aliases(self) -> Sequence[Alias]:
        """
        Virtual names of the memory that no page table is needed for.

        The ELF header has one for each region. VMCOREINFO tells where the kernel's
        image is, and on some architectures the linear map.
        """
        named = [
            Alias(region.virtual, region.range.start, region.range.size)
            for region in self.collected.regions
            if region.virtual is not None
            and region.virtual + region.range.size <= _ADDRESS_END
        ]
        # Later ones come first where a program reads: what is told, not concluded.
        return [*_linear(self), *_image(self, guess=not named), *named]


def _image(target: DumpTarget, *, guess: bool) -> list[Alias]:
    """
    Return where the image is mapped.

    :param guess: Whether to be content with an end that is not known.
    """
    arch = get_arch(target.machine)
    if not arch.image_is_alone and not guess:
        return []
    try:
        image = arch.image(target.vmcoreinfo())
    except KmemdumpError as error:
        logger.debug("no image: %s", error)
        return []
    return [image._replace(size=min(image.size, _IMAGE_SIZE))]


def _linear(target: DumpTarget) -> list[Alias]:
    try:
        info = target.vmcoreinfo()
        # What the kernel's memory would have to tell may not be there.
        direct = get_arch(target.machine).direct_map(info, lambda _variable: None)
    except KmemdumpError as error:
        logger.debug("no linear map: %s", error)
        return []
    if direct is None:
        return []
    end = max((item.end for item in target.memory.ranges), default=0)
    size = min(end - direct.physical, direct.size)
    return [direct._replace(size=size)] if size > 0 else []
