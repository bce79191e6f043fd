# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel log, against a writer that follows the kernel's, and a real one."""

import re
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.partial_read import read_partial
from kmemdump.kernel.printk import (
    LogRecord,
    find_log_places,
    format_record,
    read_log,
    read_newest,
)
from kmemdump.memory.ranges import Range, intersect
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.printk_ring import (
    DESC_SIZE,
    DESCS,
    INFO,
    INFO_SIZE,
    INFOS,
    PRB,
    RING,
    TEXT,
    VMCOREINFO,
    Writer,
    memory,
)
from rigs.scenarios import each_kernel_once, tells
from rigs.writers.printk import COMMITTED, FINALIZED, IDS

TEXTS = st.one_of(
    st.just(""),
    st.text("abcé\n☠", min_size=1, max_size=12),
    # Just fitting blocks, and those that wrap in the middle of a record.
    st.integers(1, 260).map(lambda size: ("0123456789" * 26)[:size]),
)


@given(
    st.integers(2, 7),
    st.integers(7, 10),
    st.booleans(),
    st.lists(st.tuples(TEXTS, st.sampled_from("wwwwwwwhr")), max_size=150),
)
def test_what_was_written_is_read(count_bits, size_bits, tight, steps):
    writer = Writer(count_bits, size_bits, tight)
    held = []
    for text, step in steps:
        if step == "h":  # A writer that is interrupted holds up all others.
            held.append(writer.write(text, commit=False))
        elif step == "r" and held:
            desc = held.pop()
            if desc is not None:
                newest = desc.id == writer.head_id
                desc.state = COMMITTED if newest else FINALIZED
        else:
            writer.write(text)
    whole = read_log(writer.memory(), INFO)
    assert whole == writer.expected()
    for count in (1, 5, 1 << count_bits):
        newest = read_newest(writer.memory(), INFO, count)
        assert newest.missing == 0
        seen = len(newest.records)
        assert newest.records == whole.records[len(whole.records) - seen :]
        assert seen + newest.lost + newest.unfinished <= count
    assert (newest, newest.unfinished) == (whole, whole.unfinished)


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("length", range(1, 60))
def test_every_way_to_wrap(length, tight):
    writer = Writer(6, 8, tight)
    written = []
    for i in range(200):
        text = f"{i:04}".ljust(length, "x")[:length]
        assert writer.write(text) is not None
        written.append(text)
    log = read_log(writer.memory(), INFO)
    texts = [record.text for record in log.records]
    assert len(texts) >= 256 // (16 + length) - 1
    assert texts == written[-len(texts) :]
    assert log.lost == 0
    read = writer.memory()
    places = find_log_places(read, INFO)
    assert [read(*place).decode() for place in places.texts] == texts


def test_reused_block_is_lost():
    # The descriptors were read first, then the kernel went on.
    writer = Writer(4, 8)
    for i in range(4):
        writer.write(f"record {i}")
    struct.pack_into("<Q", writer.text, writer.descs[1].begin % 256, 0x123)
    log = read_log(writer.memory(), INFO)
    assert [record.text for record in log.records] == [
        "record 0",
        "record 2",
        "record 3",
    ]
    assert log.lost == 1


def bytes_of(writer, desc):
    """Return where a record is: (address, size) of each part."""
    index = desc.id % writer.count
    yield DESCS + index * DESC_SIZE, DESC_SIZE
    yield INFOS + index * INFO_SIZE, INFO_SIZE
    if not desc.begin & 1:
        begin, end = desc.begin % writer.size, desc.next % writer.size or writer.size
        yield TEXT + begin, 8
        # Padding follows, which nobody reads.
        yield TEXT + (begin if begin < end else 0) + 8, desc.length


@given(
    st.booleans(),
    st.lists(st.integers(0, 120), min_size=1, max_size=300),
    st.sampled_from([DESCS, INFOS, TEXT]),
    st.integers(0, 1 << 13),
    st.booleans(),
)
def test_half_a_log(tight, lengths, array, cut, end):
    """Of one of the arrays, only the beginning or the end is there."""
    writer = Writer(7, 13, tight)
    for i, length in enumerate(lengths):
        writer.write(f"{i:03}{'x' * length}")
    whole = writer.memory()
    gone = Range(array + cut, 1 << 13) if end else Range(array, cut)

    def there(address, size):
        return not intersect([Range(address, size)], [gone])

    def read(address, size):
        if not there(address, size):
            raise NotCapturedError(f"{address:#x} is not there")
        return whole(address, size)

    held = [
        writer.desc(writer.tail_id + i)
        for i in range((writer.head_id - writer.tail_id) % IDS + 1)
    ]
    left = [
        desc.text
        for desc in held
        if desc.state in (COMMITTED, FINALIZED)
        and all(there(*part) for part in bytes_of(writer, desc))
    ]
    if not left:
        with pytest.raises(NotCapturedError, match="is not there"):
            read_log(read, INFO)
        return
    log = read_log(read, INFO)
    assert [record.text for record in log.records] == left
    # Of a descriptor that is not there, nobody knows whether it was in use.
    missing = len(writer.expected().records) - len(left)
    assert missing <= log.missing <= len(held) - len(left)
    if log.missing:
        with pytest.raises(NotCapturedError, match=f"^{log.missing} of .* are missing"):
            log.check()


def test_hole_in_the_middle():
    """A region that was cut, and the next one, which goes on from there."""
    data = bytes(range(256)) * 64
    hole = Range(5000, 300)

    def read(address, size):
        if intersect([Range(address, size)], [hole]):
            raise NotCapturedError("a hole")
        return data[address : address + size]

    found = read_partial(read, 100, 16000)
    assert found.ranges == [Range(0, 4900), Range(5200, 10800)]
    assert found.part(0, 4900) == data[100:5000]
    assert found.part(5200, 10800) == data[5300:16100]
    with pytest.raises(NotCapturedError, match="are not all captured"):
        found.part(4899, 2)


@pytest.mark.slow
def test_a_hole_without_an_end():
    """If a gigabyte is missing, not every page is tried."""
    reads = 0

    def read(address, size):
        nonlocal reads
        reads += 1
        raise NotCapturedError("nothing is there")

    assert read_partial(read, 0, 1 << 30).ranges == []
    assert reads < 60_000


def test_format():
    records = [
        LogRecord(0, 1_234_567_890, 6, 0, 0, False, "one\n  two"),
        LogRecord(1, 12_345_000_000_000, 6, 0, 0, False, ""),
    ]
    assert [format_record(record) for record in records] == [
        "[    1.234567] one\n[    1.234567]   two",
        "[12345.000000] ",
    ]


def damaged(offset, value):
    writer = Writer(4, 8)
    for i in range(9):
        writer.write(f"record {i}")
    read = writer.memory()

    def read_damaged(address, size):
        if address == RING + offset:
            return struct.pack("<Q", value)
        return read(address, size)

    return read_damaged


@pytest.mark.parametrize(
    ("offset", "value", "problem"),
    [
        (0, 0, r"2\^0 descriptors"),
        (0, 63, r"2\^63 descriptors and 2\^8 bytes of text, expected at most"),
        (48, 32, r"2\^32 bytes of text"),
        (48, 31, r"expected at most 1 GiB"),
        (8, (1 << 64) - 8, "which wrap around"),
        (24, 77, "records 4611.* to 77, expected at most 16: damaged"),
    ],
)
def test_damaged_header(offset, value, problem):
    with pytest.raises(FormatError, match=problem):
        read_log(damaged(offset, value), INFO)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("SIZE(prb_desc)=0", r"SIZE\(prb_desc\) is 0, expected 8 to 4096"),
        ("SIZE(printk_info)=99999", "is 99999"),
        ("OFFSET(prb_desc.state_var)=25", "is 25, expected 0 to 24"),
        ("OFFSET(printk_info.text_len)=-1", "is -1, expected 0 to 44"),
    ],
)
def test_hostile_vmcoreinfo(line, problem):
    info = VmcoreInfo.parse(f"{VMCOREINFO}{line}\n".encode(), "test")
    with pytest.raises(FormatError, match=problem):
        read_log(damaged(16, INFOS), info)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([PRB, RING, DESCS, INFOS, TEXT]),
            st.integers(0, 300),
            st.integers(0, 255),
        ),
        max_size=20,
    )
)
def test_any_damage_is_survived(damage):
    writer = Writer(4, 8)
    for i in range(50):
        writer.write(f"record {i}")
    read = writer.memory()
    pieces = {
        start: bytearray(read(start, size))
        for start, size in (
            (PRB, 8),
            (RING, 64),
            (DESCS, 16 * DESC_SIZE),
            (INFOS, 16 * INFO_SIZE),
            (TEXT, 256),
        )
    }
    for start, offset, value in damage:
        pieces[start][offset % len(pieces[start])] = value
    try:
        log = read_log(memory({k: bytes(v) for k, v in pieces.items()}), INFO)
    except FormatError:
        return
    assert len(log.records) + log.lost <= 16


def kmemdump(*arguments):
    argv = [sys.executable, "-m", "kmemdump", *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@pytest.mark.vm
@each_kernel_once
def test_wrapped_log_of_a_real_kernel(booted, vmlinux, architecture, kernel, tmp_path):
    machine = booted(kernel, architecture=architecture)
    options = []
    if not tells(architecture, kernel):
        options = ["--vmlinux", vmlinux(kernel, architecture)]
    # Lines of all lengths, so that the ring wraps at every place of a record.
    machine.run(
        "echo Y >/sys/module/printk/parameters/time; "  # CONFIG_PRINTK_TIME may be off.
        "cd /proc/sys/kernel; echo 1 >printk; echo on >printk_devkmsg; i=0; s=; "
        "while [ $i -lt 6000 ]; do s=$s$((i % 10)); "
        "[ ${#s} -gt 90 ] && s=; "
        'echo "<6>record $i $s" >/dev/kmsg; i=$((i + 1)); done',
        timeout=300,
    )
    machine.run("dmesg -r >/run/dmesg || dmesg >/run/dmesg")
    machine.pause()
    core = tmp_path / "core"
    kmemdump("capture", f"qmp:{machine.qmp}", "-o", core, *options)
    outputs = {
        "memory": kmemdump("ask", f"qmp:{machine.qmp}", "log"),
        "core": kmemdump("ask", core, "log"),
        "report": kmemdump("report", core, "--lines", "9999", *options),
    }
    machine.resume()
    # The kernel's own reader, which is right.
    guest = [
        re.sub(r"^<\d+>", "", line)
        for line in machine.run("cat /run/dmesg", timeout=120).splitlines()
    ]
    assert guest[-1].split("] ")[1].startswith("record 5999 ")
    assert len(guest) > 1000
    assert not any("Linux version" in line for line in guest)  # Overwritten.
    for where, text in outputs.items():
        lines = [line.strip() for line in text.splitlines()]
        start = lines.index(guest[0].strip())
        found = lines[start : start + len(guest)]
        assert found == [line.strip() for line in guest], where


def test_blocks_that_overlap():
    """Each of 4,096 reaches to the end of the ring: its copies would take hours."""
    writer = Writer(12, 20)
    for _ in range(4096):
        writer.write("x")
    for desc in writer.descs:
        desc.next = (desc.begin // writer.size + 1) * writer.size % (1 << 64)
        desc.length = 65535
    log = read_log(writer.memory(), INFO)
    assert sum(len(record.text) for record in log.records) <= 2 * writer.size
