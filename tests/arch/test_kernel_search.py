# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without VMCOREINFO is known by its contents, or not taken for one."""

import os
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.arch.kernel_finder import find_by_contents
from kmemdump.errors import FormatError
from kmemdump.memory.physical import FileMemory
from kmemdump.memory.ranges import Extent
from rigs.writers.kallsyms import NEW, OLD, PLACE, SORTED
from rigs.writers.kernel_memory import SyntheticKernel

LAYOUTS = [
    pytest.param(OLD, 8, id="5.10"),
    pytest.param(SORTED, 8, id="6.2"),
    pytest.param(NEW, 8, id="6.6"),
    pytest.param(PLACE, 8, id="7.0"),
    pytest.param(PLACE, 4, id="7.2"),
]


def memory(kernel: SyntheticKernel, data: bytes | None = None) -> FileMemory:
    fd = os.memfd_create("kernel")
    os.write(fd, data or kernel.memory)
    return FileMemory(fd, [Extent(kernel.ram, kernel.size, 0)], "ram")


@cache
def make(arch: str, **options: object) -> SyntheticKernel:
    ram = 0 if arch == "x86_64" else 0x80000000
    return SyntheticKernel(arch, ram=ram, **options)


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("order", "alignment"), LAYOUTS)
def test_found_with_all_lines(arch, order, alignment):
    kernel = make(arch, order=order, alignment=alignment)
    info = find_by_contents(memory(kernel), "ram")
    assert info is not None
    found = {key: info.values.get(key) for key in kernel.truth}
    assert found == kernel.truth
    assert "kernel at 0x" in info.source


PREFERRED = range(0x258, 0x260)
"""
Bytes of boot_params that say what address an image is linked for. Nothing else in
memory does, so one that is wrong, but aligned, cannot be noticed.
"""


def damageable(kernel: SyntheticKernel) -> list[range]:
    """Return everything that the kernel is known by, each as likely as the others."""
    tables = sorted(kernel.tables.places.values())
    start = kernel.parts["kallsyms"].start
    ends = [*tables[1:], len(kernel.tables.data)]
    parts = [range(start + a, start + b) for a, b in zip(tables, ends, strict=True)]
    params = kernel.parts["boot_params"].start
    parts += [range(params + 0x1FE, params + PREFERRED.start)]
    return parts + [
        part
        for name, part in kernel.parts.items()
        if name not in ("kallsyms", "boot_params")
    ]


@given(data=st.data())
def test_damage_is_refused_or_read_right(data):
    """Whichever byte of what a kernel is known by is wrong, no line is."""
    arch = data.draw(st.sampled_from(["x86_64", "aarch64"]))
    order, alignment = data.draw(st.sampled_from([it.values for it in LAYOUTS]))
    kernel = make(arch, order=order, alignment=alignment)
    part = data.draw(st.sampled_from(damageable(kernel)))
    damaged = bytearray(kernel.memory)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(part.start, part.stop - 1))
        damaged[at] ^= data.draw(st.integers(1, 255))
    ram = memory(kernel, bytes(damaged))
    info = None
    with suppress(FormatError):
        info = find_by_contents(ram, "ram")
    ram.close()
    found = info.values if info is not None else {}
    assert not found.items() - kernel.truth.items()
