# SPDX-License-Identifier: GPL-2.0-or-later
"""Reserved memory of this machine: what may be written, and until when."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kmemdump.errors import NotCapturedError, UnsupportedError
from kmemdump.formats.fdt import Node
from kmemdump.formats.iomem import parse_iomem
from kmemdump.lab.fdt_writer import pack_fdt
from kmemdump.memory.ranges import Range
from kmemdump.targets.devmem import open_reserved

PAGE = os.sysconf("SC_PAGE_SIZE")
BEFORE = f"""\
{PAGE:08x}-{2 * PAGE - 1:08x} : System RAM
{2 * PAGE:08x}-{6 * PAGE - 1:08x} : Reserved
{8 * PAGE:08x}-{9 * PAGE - 1:08x} : pl011@9000000
"""
ADDED = f"{2 * PAGE:08x}-{6 * PAGE - 1:08x} : System RAM (virtio_mem)\n"
PLACE = Range(3 * PAGE + 256, 64)


@pytest.fixture
def root(tmp_path):
    """A machine whose memory is a file."""
    for folder in ("dev", "proc", "sys/firmware"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dev/mem").write_bytes(bytes(range(256)) * (9 * PAGE // 256))
    (tmp_path / "proc/iomem").write_text(BEFORE)
    return tmp_path


def test_nothing_beside_the_place_is_written(root):
    before = (root / "dev/mem").read_bytes()
    with closing(open_reserved([PLACE], root)) as memory:
        memory.write(PLACE.start, b"x" * 64)
        assert memory.read(PLACE.start, 64) == b"x" * 64
        # The rest of its page is mapped, too.
        for address in (PLACE.start - 8, PLACE.end - 4, PLACE.end, 3 * PAGE):
            with pytest.raises(NotCapturedError, match="not mapped for writing"):
                memory.write(address, b"12345678")
            with pytest.raises(NotCapturedError):
                memory.read(address, 8)
        assert memory.ranges == [PLACE]
    wanted = before[: PLACE.start] + b"x" * 64 + before[PLACE.end :]
    assert (root / "dev/mem").read_bytes() == wanted


def test_memory_that_comes_into_use_is_written_no_more(root):
    with closing(open_reserved([PLACE], root)) as memory:
        memory.write(PLACE.start, b"first")
        (root / "proc/iomem").write_text(ADDED)
        good = (root / "dev/mem").read_bytes()
        with pytest.raises(UnsupportedError, match=r"in use.*System RAM \(virtio_mem"):
            memory.write(PLACE.start, b"second")
        assert (root / "dev/mem").read_bytes() == good
        # Some other memory comes, and this is free again.
        (root / "proc/iomem").write_text(BEFORE + "100000000-1ffffffff : System RAM\n")
        memory.write(PLACE.start, b"third")
        assert memory.read(PLACE.start, 5) == b"third"


def test_the_file_is_read_but_understood_only_when_it_changes(root, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        "kmemdump.targets.memory_use.parse_iomem",
        lambda *text: parsed.append(text) or parse_iomem(*text),
    )
    with closing(open_reserved([PLACE], root)) as memory:
        for i in range(50):
            memory.write(PLACE.start, bytes([i]))
    assert len(parsed) == 1


def test_what_the_kernel_uses_is_not_mapped(root):
    for place, use in (
        (Range(2 * PAGE - 64, 128), "System RAM"),
        (Range(8 * PAGE, 64), "pl011"),
    ):
        with pytest.raises(UnsupportedError, match=rf"in use.*{use}"):
            open_reserved([place], root)


def test_what_nobody_lists_may_be_registers_of_a_device(root):
    place = Range(6 * PAGE, 2 * PAGE)
    with pytest.raises(UnsupportedError, match="not known to be memory") as error:
        open_reserved([place], root)
    assert "check its address" in str(error.value)
    # Half of it is reserved by the device tree; then all.
    for size, good in ((PAGE, False), (2 * PAGE, True)):
        reg = b"".join(it.to_bytes(8, "big") for it in (place.start, size))
        cells = dict.fromkeys(("#address-cells", "#size-cells"), b"\0\0\0\2")
        region = Node("region", {"reg": reg, "no-map": b""}, [])
        memory = Node("reserved-memory", cells, [region])
        tree = Node("", {}, [memory])
        (root / "sys/firmware/fdt").write_bytes(pack_fdt(tree))
        if good:
            open_reserved([place], root).close()
        else:
            with pytest.raises(UnsupportedError, match=f"{7 * PAGE:#x}"):
                open_reserved([place], root)


def test_without_iomem(root):
    (root / "proc/iomem").unlink()
    with pytest.raises(UnsupportedError, match=r"reserved: .*\nnothing was written"):
        open_reserved([PLACE], root)


def shows_addresses() -> bool:
    try:
        text = Path("/proc/iomem").read_text()
    except OSError:
        return False
    return any(line.split("-")[0].strip("0 ") for line in text.splitlines())


LOOK = """
import os, sys
from kmemdump.agent.privileges import drop_admin
from kmemdump.errors import UnsupportedError
from kmemdump.memory.ranges import Range
from kmemdump.targets.memory_use import MemoryUse
def said(use):
    try: use.check([Range(0, 1 << 52)])
    except UnsupportedError as error: return str(error).split(chr(10))[0]
early = MemoryUse()
drop_admin()
drop_admin()
print(said(early)); print(said(MemoryUse()))
print(*(it for it in open("/proc/self/status") if it.startswith("Cap")), sep="")
"""


@pytest.mark.skipif(not shows_addresses(), reason="/proc/iomem hides its addresses")
@pytest.mark.parametrize("given", [False, True])
def test_addresses_are_seen_without_the_capability(given):
    """The real file: opened before it is dropped, or by the one that starts us."""
    with open("/proc/iomem" if given else os.devnull) as file:
        argv = [sys.executable, "-c", LOOK]
        done = subprocess.run(
            argv, stdin=file, capture_output=True, text=True, check=True
        )
    early, late, *sets = done.stdout.splitlines()
    assert "is in use" in early
    assert ("is in use" if given else "hides its addresses") in late
    found = dict(line.split() for line in sets if line)
    for name in ("CapInh:", "CapPrm:", "CapEff:", "CapAmb:"):
        assert not int(found[name], 16) & 1 << 21, name
