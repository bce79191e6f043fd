# SPDX-License-Identifier: GPL-2.0-or-later
"""Sahara's memory debug mode: packets, tables, and both sides of the exchange."""

import collections
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.formats.sahara import (
    Command,
    DeviceRow,
    Packet,
    name_row,
    pack_packet,
    pack_table,
    parse_packet,
    parse_table,
)
from kmemdump.formats.sahara_device import Device
from kmemdump.formats.sahara_host import (
    Data,
    Failure,
    Finished,
    SaharaHost,
    Send,
    TableReceived,
)
from rigs.writers.sahara import write_packet, write_table

HELLO = bytes.fromhex("01000000 30000000 02000000 01000000 00040000 02000000") + bytes(
    24
)
RESPONSE = bytes.fromhex(
    "02000000 30000000 02000000 01000000 00000000 02000000"
) + bytes(24)
MEM_DEBUG64 = bytes.fromhex("10000000 18000000 00f06b1400000000 8000000000000000")
READ_TABLE = bytes.fromhex("11000000 18000000 00f06b1400000000 8000000000000000")
TABLE = bytes.fromhex(
    "0100000000000000 0000e09f00000000 0070000000000000"
    "6d645f4b454c46" + "00" * 13 + "6d645f4b454c462e42494e" + "00" * 9 + ""
    "0100000000000000 0000d89f00000000 0401000000000000"
    "6d645f4b766d636f7265696e"
    + "00" * 8
    + "6d645f4b766d636f7265696e2e42494e"
    + "00" * 4
)
READ_0 = bytes.fromhex("11000000 18000000 0000e09f00000000 0070000000000000")
READ_1 = bytes.fromhex("11000000 18000000 0000d89f00000000 0401000000000000")
RESET = bytes.fromhex("07000000 08000000")
RESET_RESPONSE = bytes.fromhex("08000000 08000000")
ERROR = bytes.fromhex("04000000 10000000 00000000 19000000")
ROWS = (name_row("KELF", 0x9FE00000, 0x7000), name_row("Kvmcorein", 0x9FD80000, 0x104))


def test_worked_example_host() -> None:
    host = SaharaHost("usb")
    assert host.receive(HELLO) == [Send(RESPONSE)]
    assert host.receive(MEM_DEBUG64) == [Send(READ_TABLE)]
    assert host.expected == 128
    assert host.receive(TABLE) == [TableReceived(ROWS), Send(READ_0)]
    first, second = bytes(0x7000), b"v" * 0x104
    assert host.receive(first[:0x4000]) == [Data(ROWS[0], 0, first[:0x4000])]
    assert host.receive(first[0x4000:]) == [
        Data(ROWS[0], 0x4000, first[0x4000:]),
        Send(READ_1),
    ]
    assert host.receive(second) == [Data(ROWS[1], 0, second), Send(RESET)]
    assert host.receive(RESET_RESPONSE) == [Finished()]
    assert host.finished
    with pytest.raises(FormatError, match="sends more after"):
        host.receive(HELLO)


def test_worked_example_device() -> None:
    device = Device(ROWS, lambda _, size: bytes(size), table_address=0x146BF000)
    assert device.start() == HELLO
    assert device.receive(READ_0)[:4] == ERROR[:4]  # Not yet.
    assert device.receive(RESPONSE) == MEM_DEBUG64
    assert device.receive(READ_TABLE) == TABLE
    assert device.receive(READ_0) == bytes(0x7000)
    assert device.receive(pack_packet(Command.MEM_READ64, 0x9FD80000, 0x105)) == ERROR
    assert not device.finished
    assert device.receive(RESET) == RESET_RESPONSE
    assert device.finished


def test_32_bit() -> None:
    mem_debug = bytes.fromhex("09000000 10000000 00c00308 68000000")
    rows = [
        (0x101, 0x80000000, 4, "a", "md_a.BIN"),
        (2, 0x90000000, 9, "b", "md_b.BIN"),
    ]
    host = SaharaHost("usb")
    host.receive(HELLO)
    (ask,) = host.receive(mem_debug)
    assert ask == Send(bytes.fromhex("0a000000 10000000 00c00308 68000000"))
    table, ask = host.receive(write_table(rows, wide=False))
    assert table == TableReceived(
        (
            DeviceRow(1, 0x80000000, 4, "a", "md_a.BIN"),
            DeviceRow(2, 0x90000000, 9, "b", "md_b.BIN"),
        )
    )
    assert ask == Send(write_packet(0xA, 0x80000000, 4))
    device = Device(table.rows, lambda _, size: bytes(size), wide=False)
    device.start()
    assert device.receive(RESPONSE) == write_packet(9, 0x1000, 104)
    assert device.receive(write_packet(0xA, 0x90000000, 9)) == bytes(9)


Outcome = tuple[dict[str, bytes], list[str]]


def run(
    rows: Sequence[DeviceRow],
    memory: dict[int, bytes],
    transfer: int = 1 << 20,
    **host: object,
) -> Outcome:
    """Let both sides talk, in transfers of at most so many bytes."""

    def read(address: int, size: int) -> bytes:
        for start, data in memory.items():
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise NotCapturedError("nothing")

    collector = SaharaHost("usb", **host)
    device = Device(rows, read, wide=all(row.address < 1 << 40 for row in rows))
    found: dict[str, bytes] = {}
    failed: list[str] = []
    answers = [device.start()]
    while answers and not collector.finished:
        data = answers.pop(0)
        for at in range(0, len(data), transfer):
            for event in collector.receive(data[at : at + transfer]):
                if isinstance(event, Send):
                    answers.append(device.receive(event.data))
                elif isinstance(event, Data):
                    before = found.setdefault(event.row.file_name, b"")
                    assert len(before) == event.offset
                    found[event.row.file_name] = before + event.data
                elif isinstance(event, Failure):
                    failed.append(f"{event.row.file_name}: {event.reason}")
    assert collector.finished
    return found, failed


@given(
    st.lists(st.binary(max_size=100), max_size=6),
    st.sampled_from([17, 20, 32, 1000]),
    st.sampled_from([48, 100, 512]),
)
def test_both_sides(regions: list[bytes], chunk: int, transfer: int) -> None:
    rows, memory = [name_row("first", 0x800, 4)], {0x800: b"1234"}
    for i, data in enumerate(regions):
        address = (i + 1) << 16
        rows.append(name_row(f"r{i}", address, len(data)))
        memory[address] = data
    found, failed = run(rows, memory, transfer, chunk=chunk)
    assert failed == []
    assert [found[row.file_name] for row in rows] == [b"1234", *regions]


def test_device_that_refuses_a_region() -> None:
    rows = [name_row("a", 0x10000, 100), name_row("b", 0x20000, 100)]
    rows.append(name_row("c", (1 << 64) - 4, 100))
    found, failed = run(rows[:2], {0x20000: b"b" * 100})
    assert found == {"md_b.BIN": b"b" * 100}
    assert failed == ["md_a.BIN: status 0x19 (invalid memory read)"]


def test_region_that_looks_like_an_error() -> None:
    """16 bytes of data are never asked for at once."""
    for data in (ERROR, ERROR + bytes(100)):
        found, failed = run(
            [name_row("a", 0x10000, len(data))], {0x10000: data}, chunk=20
        )
        assert found == {"md_a.BIN": data}
        assert failed == []


def test_wanted() -> None:
    rows = [name_row("a", 0x10000, 1), name_row("b", 0x20000, 1)]
    memory = {0x10000: b"a", 0x20000: b"b"}
    found, _ = run(rows, memory, wanted=lambda rows: rows[1:])
    assert found == {"md_b.BIN": b"b"}


@pytest.mark.parametrize(
    ("packets", "problem"),
    [
        ([b""], "packet of 0 bytes"),
        ([HELLO[:47]], "HELLO says 48 bytes and has 47"),
        ([b"\x7f\0\0\0\x08\0\0\0"], "command 0x7f"),
        ([HELLO[:20] + b"\0" + HELLO[21:]], "is in mode 0, expected 2"),
        ([MEM_DEBUG64], "MEM_DEBUG64, which is not allowed in state HELLO"),
        ([HELLO, RESET_RESPONSE], "RESET_RESP, which is not allowed"),
        ([HELLO, ERROR], r"reports an error: status 0x19 \(invalid memory read\)"),
        ([HELLO, write_packet(0x10, 0, 65537, wide=True)], "table of 65537 bytes"),
        ([HELLO, write_packet(0x10, 0, 0, wide=True)], "table of 0 bytes"),
        ([HELLO, write_packet(0x10, 0, 65, wide=True), bytes(65)], "a multiple of 64"),
        ([HELLO, MEM_DEBUG64, ERROR], "refuses its region table"),
        ([HELLO, MEM_DEBUG64, bytes(129)], "sent 129 bytes, expected at most 128"),
    ],
)
def test_refused(packets: list[bytes], problem: str) -> None:
    host = SaharaHost("usb")
    for packet in packets[:-1]:
        host.receive(packet)
    with pytest.raises(FormatError, match=problem):
        host.receive(packets[-1])
    assert host.reset() == RESET
    assert host.receive(RESET_RESPONSE) == [Finished()]


def test_restarted_state_machine() -> None:
    host = SaharaHost("usb")
    host.receive(HELLO)
    assert host.receive(write_packet(0x13)) == []
    assert host.receive(HELLO) == [Send(RESPONSE)]


def test_region_that_wraps_around() -> None:
    host = SaharaHost("usb")
    host.receive(HELLO)
    host.receive(write_packet(0x10, 0, 64, wide=True))
    row = (1, (1 << 64) - 4, 8, "d", "d.BIN")
    _, failure, reset = host.receive(write_table([row], wide=True))
    assert isinstance(failure, Failure)
    assert reset == Send(RESET)


def test_names_without_an_end() -> None:
    row = (1, 0, 1, "d" * 20, "f" * 20)
    (found,) = parse_table(write_table([row], wide=True), "t", wide=True)
    assert (found.description, found.file_name) == ("d" * 20, "f" * 20)
    with pytest.raises(FormatError, match="at most 20"):
        pack_table([DeviceRow(1, 0, 1, "d", "f" * 21)], wide=True)
    with pytest.raises(FormatError):
        pack_table([DeviceRow(1, 1 << 32, 1, "d", "f")], wide=False)


def test_device_answers_nonsense() -> None:
    device = Device(ROWS, lambda _, size: bytes(size))
    assert parse_packet(device.receive(b"nonsense"), "d") == Packet(
        Command.END_OF_IMAGE, (0, 1)
    )
    wrong = RESPONSE[:20] + b"\1" + RESPONSE[21:]
    assert parse_packet(device.receive(wrong), "d").values == (0, 0x18)


def test_a_device_that_begins_for_ever() -> None:
    again = pack_packet(Command.RESET_STATE)
    for packets in ([HELLO], [HELLO, again]):
        host = SaharaHost("device")
        with pytest.raises(FormatError, match="began 101 times"):
            collections.deque(map(host.receive, packets * 200), 0)
