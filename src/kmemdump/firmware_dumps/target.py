# SPDX-License-Identifier: GPL-2.0-or-later
"""A firmware dump, as a target like any other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cached_property

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.arch.pagetable import walk
from kmemdump.errors import KmemdumpError, NotCapturedError
from kmemdump.firmware_dumps.assemble import FirmwareDump
from kmemdump.memory.ranges import ADDRESS_SPACE, Alias
from kmemdump.targets.file import FileTarget
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["DumpTarget"]

logger = logging.getLogger(__name__)

_IMAGE_SIZE = 128 << 20
"""Most kernels' images are smaller."""


class _TableMissingError(Exception):
    """The dump lacks a part of the kernel's page table."""


class DumpTarget(FileTarget):
    """
    A firmware dump of a kernel.

    :param vmcoreinfo: Used instead of the dump's.
    """

    def __init__(
        self, dump: FirmwareDump, vmcoreinfo: VmcoreInfo | None = None
    ) -> None:
        super().__init__(
            dump.source,
            dump.machine,
            dump.memory,
            dump.notes,
            vmcoreinfo,
        )
        self.dump = dump
        for problem in dump.problems:
            logger.info("%s: %s", dump.source, problem)

    @property
    def aliases(self) -> Sequence[Alias]:
        """
        The aliases that are known without a page table.

        The ELF header has one for each region. VMCOREINFO has that of the kernel's
        image, and on some architectures that of the linear map. There are none if the
        dump has the whole page table, as one of all RAM has.
        """
        if self._has_page_table:
            return []
        named = [
            Alias(region.virtual, region.range.start, region.range.size)
            for region in self.dump.regions
            if region.virtual is not None
            and region.virtual + region.range.size <= ADDRESS_SPACE
        ]
        # Later aliases take precedence: those in the dump over those inferred from it.
        aliases = [self._linear(), self._image(guess=not named), *named]
        return [alias for alias in aliases if alias is not None and alias.size > 0]

    @cached_property
    def _has_page_table(self) -> bool:
        def read(address: int, size: int) -> bytes:
            try:
                return self.memory.read(address, size)
            except NotCapturedError as error:
                raise _TableMissingError from error

        try:
            info = self.vmcoreinfo()
            table = arch_from_elf(self.machine).page_table(info)
            return any(True for _ in walk(table, read))
        except (KmemdumpError, _TableMissingError):
            return False

    def _image(self, *, guess: bool) -> Alias | None:
        """
        Return the alias of the image.

        :param guess: Whether to return it even if its end is not known.
        """
        arch = arch_from_elf(self.machine)
        if not arch.image_is_alone and not guess:
            return None
        try:
            image = arch.image(self.vmcoreinfo())
        except KmemdumpError as error:
            logger.debug("no image: %s", error)
            return None
        return image._replace(size=min(image.size, _IMAGE_SIZE))

    def _linear(self) -> Alias | None:
        arch = arch_from_elf(self.machine)
        try:
            # Variables in the kernel's memory may not be in the dump.
            direct = arch.direct_map(self.vmcoreinfo(), lambda _variable: None)
        except KmemdumpError as error:
            logger.debug("no linear map: %s", error)
            return None
        if direct is None:
            return None
        end = max((item.end for item in self.memory.ranges), default=0)
        return direct._replace(size=min(end - direct.physical, direct.size))
