# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel logs in every form in which people have them."""

import gzip
import json
import os
import shutil
import struct
import subprocess
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.errors import FormatError, KmemdumpError, TargetError
from kmemdump.logs.detect import LogFormat, detect_log
from kmemdump.logs.log_text import parse_text
from kmemdump.logs.read import MAX_LOG, open_log, parse_log
from rigs.console_logs import log_files

RAW = (
    "<5>[    0.000000] Linux version 6.12.1 (me@here) #1 SMP\n"
    "<6>[    1.500000] systemd[1] is no program here: x\n"
    "<30>[    2.000000] systemd[1]: BUG: a lie of a program\n"
    "<1>[ 1234.000250] BUG: kernel NULL pointer dereference, address: 00000008\n"
    "<4>[ 1234.000260] RIP: 0010:lab_null+0x5/0x10 [kmemdump_lab]\n"
    "<4>[ 1234.000270] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16\n"
)
TEXTS = [line.partition("] ")[2] for line in RAW.splitlines()]
TIMES = [0, 1_500_000_000, 2_000_000_000, 1_234_000_250_000, 1_234_000_260_000]


def only_boot(data, name="a.log"):
    log = parse_log(data if isinstance(data, bytes) else data.encode(), name)
    assert len(log.boots) == 1
    return log.boots[0]


def kernels(lines):
    return [line.text for line in lines if line.facility == 0]


OWN = [text for text in TEXTS if "lie" not in text]


def test_raw():
    lines = only_boot(RAW)
    assert [line.text for line in lines] == TEXTS
    assert [line.nanoseconds for line in lines][:5] == TIMES
    assert [line.level for line in lines] == [5, 6, 6, 1, 4, 4]
    assert kernels(lines) == OWN
    assert [line.number for line in lines] == [1, 2, 3, 4, 5, 6]


needs_dmesg = pytest.mark.skipif(not shutil.which("dmesg"), reason="no dmesg")


@needs_dmesg
@pytest.mark.parametrize(
    ("options", "timed", "levels"),
    [
        ("", True, False),
        ("-r", True, True),
        ("-x", True, True),
        ("-T", False, False),
        ("-x -T", False, True),
        ("--time-format iso", False, False),
        ("-x --time-format iso", False, True),
        ("-d", True, False),
        ("-d -T", False, False),
        ("-e", False, False),
        ("-H -P --color=always", False, False),
        ("-t", False, False),
        ("-x -t", False, True),
    ],
)
def test_what_dmesg_prints(options, timed, levels, tmp_path):
    raw = tmp_path / "raw"
    raw.write_text(RAW)
    shown = subprocess.run(
        ["dmesg", "-F", raw, *options.split()],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    lines = only_boot(shown)
    assert [line.text for line in lines] == TEXTS
    if timed:
        assert [line.nanoseconds for line in lines][:5] == TIMES
    if levels:
        assert [line.level for line in lines] == [5, 6, 6, 1, 4, 4]
        assert kernels(lines) == OWN


@pytest.mark.parametrize(
    "prefix",
    [
        "[ 1234.000250] ",  # The console's.
        "[ 1234.000250][T77] ",  # With CONFIG_PRINTK_CALLER.
        "[ 1234.000250] [   T77] ",  # The same, of dmesg.
        "[ 1234.000250][    C1] ",
        "<1>[ 1234.000250] ",
        "Nov 28 06:07:01 myhost kernel: [ 1234.000250] ",  # syslog
        "2026-11-28T06:07:01.123456+00:00 myhost kernel: [ 1234.000250] ",
        "Nov 28 06:07:01 myhost kernel: ",  # journalctl -o short
        "Nov 28 06:07:01.123456 myhost kernel: ",  # short-precise
        "2026-11-28T06:07:01+0000 myhost kernel: ",  # short-iso, older
        "2026-11-28T06:07:01+00:00 myhost kernel: ",
        "2026-11-28T06:07:01.123456+00:00 myhost kernel: ",  # short-iso-precise
        "Sat 2026-11-28 06:07:01 UTC myhost kernel: ",  # short-full
        "[ 1234.000250] myhost kernel: ",  # short-monotonic
        "1795846021.123456 myhost kernel: ",  # short-unix
        "2026-11-28T06:07:01.1234567Z [ 1234.000250] ",  # A CI system's.
        "[2026-11-28 06:07:01] [ 1234.000250] ",  # ts
        "Nov 28 06:07:01 [ 1234.000250] ",
        "",
    ],
)
@pytest.mark.parametrize("text", [TEXTS[3], TEXTS[4], TEXTS[5], " __die+0x1/0x2"])
def test_prefixes(prefix, text):
    first, second = only_boot(f"{prefix}{text}\n{prefix}second\n")[:2]
    assert (first.text, second.text) == (text, "second")
    assert first.facility == 0
    if "[ 1234" in prefix:
        assert first.nanoseconds == 1_234_000_250_000
    assert first.host == ("myhost" if "myhost" in prefix else None)
    if "T77" in prefix:
        assert first.caller == "T77"


def test_a_date_counts_with_its_zone_only():
    text = "2026-11-28T06:07:01,123456+02:00 BUG: x\n"
    date = only_boot(text)[0].date
    assert str(date) == "2026-11-28 04:07:01.123456+00:00"  # As it is shown.
    first = "0001-01-01T00:00:01,123456+02:00 BUG: x\n"  # Before all dates, in UTC.
    assert only_boot(first)[0].date is None
    assert only_boot("[2026-11-28 06:07:01] [    1.000000] BUG: x\n")[0].date is None


def test_what_programs_log_is_not_the_kernels():
    lines = only_boot(
        "Nov 28 06:07:01 h kernel: [    1.000000] real\n"
        "Nov 28 06:07:01 h evil[12]: Kernel panic - not syncing: lie\n"
        "Nov 28 06:07:01 h sudo: [    1.000000] Kernel panic - not syncing: lie\n"
    )
    assert kernels(lines) == ["real"]


def test_serial_console():
    console = (
        b"\x1b[2J\x1b[01;01HSeaBIOS (version 1.16.2)\r\nBooting from Hard Disk...\r\n"
        b"\x00[    0.000000] Linux version 6.12.1 (me@here) #1 SMP\r\n"
        b"\r\r\n[  \x1b[0;32mOK  \x1b[0m] Started \x1b[0;1;39mSSH\x1b[0m.\r\n"
        b"Kernel panic - not syncing: typed by somebody\r\n"
        b"[  OK  ] Star[    9.000001] BUG: here\r\n"
        b"[    9.000002] \x1b[31mRIP: 0010:f+0x1/0x2\x1b[0m\r\n"
        b"[    9.000003] bad byte \xff\r\n"
        b"login: roor\x08t\r\n"
        b"[    9.100000] one[    9.200000] two"
    )
    lines = only_boot(console)
    assert kernels(lines) == [
        "Linux version 6.12.1 (me@here) #1 SMP",
        "BUG: here",
        "RIP: 0010:f+0x1/0x2",
        "bad byte \\xff",
        "one",
        "two",
    ]
    others = [line.text for line in lines if line.facility]
    assert "SeaBIOS (version 1.16.2)" in others
    assert "[  OK  ] Started SSH." in others
    assert "[  OK  ] Star" in others
    assert "login: root" in others
    assert not any("\x1b" in line.text or "\r" in line.text for line in lines)


def test_later_lines_of_a_record():
    """As makedumpfile --dump-dmesg, dmesg and crash print them."""
    lines = only_boot(
        "[    1.000000] first\n               of two lines\n[    2.000000] b\n"
        "[    3.000000] c\n"
    )
    assert kernels(lines) == ["first", "of two lines", "b", "c"]
    assert lines[1].nanoseconds == 10**9


BOOT = "[    0.000000] Linux version {} (x)\n[    1.000000] a\n[    2.000000] b\n"


def test_each_boot_by_itself():
    log = parse_log((BOOT.format("6.1") + BOOT.format("6.2")).encode(), "x")
    assert [boot[0].text[:17] for boot in log.boots] == [
        "Linux version 6.1",
        "Linux version 6.2",
    ]
    assert [len(boot) for boot in log.boots] == [3, 3]
    arm = "[    0.000000] Booting Linux on physical CPU 0x0\n"
    assert len(parse_log((arm + BOOT.format("6.1")).encode(), "x").boots) == 1
    of_journal = (
        f"{'a' * 9}: no\n-- Boot {'0' * 32} --\nb: x\n-- Boot {'1' * 32} --\nc\n"
    )
    assert len(parse_log(of_journal.encode(), "x").boots) == 3


def export(**fields):
    out = b""
    for name, value in fields.items():
        value = value if isinstance(value, bytes) else str(value).encode()
        if b"\n" in value:
            size = struct.pack("<Q", len(value))
            out += name.encode() + b"\n" + size + value + b"\n"
        else:
            out += name.encode() + b"=" + value + b"\n"
    return out + b"\n"


ENTRY = {
    "__CURSOR": "s=1",
    "__REALTIME_TIMESTAMP": 1_795_846_021_000_000,
    "__MONOTONIC_TIMESTAMP": 1_300_000_000,
    "_BOOT_ID": "a" * 32,
    "_HOSTNAME": "myhost",
    "_TRANSPORT": "kernel",
    "_SOURCE_MONOTONIC_TIMESTAMP": 1_234_000_250,
    "PRIORITY": 1,
    "SYSLOG_FACILITY": 0,
    "MESSAGE": "BUG: x",
}
PROGRAM = {
    **ENTRY,
    "_TRANSPORT": "stdout",
    "SYSLOG_FACILITY": 3,
    "MESSAGE": "Kernel panic - not syncing: lie",
}
OTHER_BOOT = {**ENTRY, "_BOOT_ID": "b" * 32, "MESSAGE": "two\nlines \xff"}
ENTRIES = (ENTRY, PROGRAM, OTHER_BOOT)


def check_journal(log):
    first, second = log.boots
    assert kernels(first) == ["BUG: x"]
    assert (first[0].nanoseconds, first[0].level) == (1_234_000_250_000, 1)
    assert first[0].date == datetime.fromtimestamp(1_795_846_021, UTC)
    assert first[0].host == "myhost"
    assert first[1].facility != 0
    assert kernels(second) == ["two", "lines \xff"]


def test_journal_export():
    data = b"".join(export(**entry) for entry in ENTRIES)
    assert detect_log(data) is LogFormat.JOURNAL_EXPORT
    check_journal(parse_log(data, "x"))
    # A machine that died cut off the end.
    assert parse_log(data[:-3], "x").boots[0][0].text == "BUG: x"


@pytest.mark.parametrize(
    "form",
    [
        lambda entries: "".join(json.dumps(entry) + "\n" for entry in entries),
        lambda entries: "".join(json.dumps(entry, indent=8) for entry in entries),
        lambda entries: "".join(f"\x1e{json.dumps(entry)}\n" for entry in entries),
        lambda entries: "".join(f"data: {json.dumps(entry)}\n\n" for entry in entries),
    ],
)
def test_journal_json(form):
    text = form(
        [{name: str(value) for name, value in entry.items()} for entry in ENTRIES]
    )
    assert detect_log(text.encode()) is LogFormat.JOURNAL_JSON
    check_journal(parse_log(text.encode(), "x"))


def test_a_message_of_bytes():
    entry = {**ENTRY, "MESSAGE": list(b"BUG: \xff")}
    log = parse_log(json.dumps(entry).encode(), "x")
    assert log.boots[0][0].text == "BUG: \\xff"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (export(**ENTRY) + b"nonsense\n", "line 12: b'nonsense', expected FIELD=VALUE"),
        (export(**ENTRY) + b"MESSAGE\n" + b"\xff" * 8, "field of 18446744073709551615"),
        (json.dumps(ENTRY).encode() + b"\n{oops}\n{}\n", "line 2: no JSON"),
    ],
)
def test_damaged_journals(data, words):
    with pytest.raises(FormatError, match=words):
        parse_log(data, "x")


KMSG = (
    b"6,100,1000000,-;first\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:01.0\n"
    b"30,101,1500000,-;a program's\n"
    b"3,103,2000000,-,caller=T77;tab\\x09and\\x0aline\n"
)


def test_kmsg():
    """As cat /dev/kmsg prints it, and a receiver of extended netconsole."""
    assert detect_log(KMSG) is LogFormat.KMSG
    log = parse_log(KMSG, "x")
    (lines,) = log.boots
    assert kernels(lines) == ["first", "tab\tand", "line"]
    assert (lines[-1].nanoseconds, lines[-1].level) == (2_000_000_000, 3)
    assert lines[-1].caller == "T77"
    assert log.lost == 1


@pytest.mark.parametrize("feed", [b"", b"\n"])
@pytest.mark.parametrize("release", [b"", b"6.12.1-amd64,"])
def test_fragments_of_netconsole(feed, release):
    text = b"x" * 900 + b"y" * 900 + b"z" * 150
    pieces = [
        (release + b"4,%d,5,-,ncfrag=%d/%d;" % (7, at, len(text))) + text[at : at + 900]
        for at in range(0, len(text), 900)
    ]
    before, after = b"6,6,4,-;before\n", b"6,8,6,-;after\n"
    # In a wrong order, and one packet twice.
    order = [pieces[1], pieces[0], pieces[0], pieces[2]]
    data = before + b"".join(piece + feed for piece in order)
    data += (b"" if feed else b"\n") + after
    log = parse_log(data, "x")
    assert kernels(log.boots[0]) == ["before", text.decode(), "after"]
    assert (log.lost, log.problems) == (0, ())
    lost = parse_log(before + pieces[0] + b"\n" + pieces[2] + b"\n" + after, "x")
    assert kernels(lost.boots[0])[1] == "x" * 900 + " [...]"
    assert lost.problems == (("a part of 1 records", "packets were lost"),)


def test_plain_netconsole():
    """It is what the console shows, with a level or without."""
    assert only_boot("[    5.000000] BUG: x\n")[0].text == "BUG: x"


def parts(folder, reason, count, texts, *, at=1_700_000_000, packed=None):
    """Write a log in parts as pstore does: part 1 is the newest."""
    for number, text in enumerate(reversed(texts), 1):
        data = f"{reason}#{count} Part{number}\n{text}".encode()
        name = f"dmesg-efi_pstore-{at}{number:02d}{count:03d}"
        if packed is not None:
            packer = zlib.compressobj(9, zlib.DEFLATED, packed)
            data, name = packer.compress(data) + packer.flush(), f"{name}.enc.z"
        (folder / name).write_bytes(data)
        os.utime(folder / name, (at, at))


LOG = [f"<6>[{i:5d}.000000] line {i}\n" for i in range(30)]


@pytest.mark.parametrize("packed", [None, 15, -15, -12])
def test_pstore_folder(tmp_path, packed):
    chunks = ["".join(LOG[i : i + 10]) for i in (0, 10, 20)]
    parts(tmp_path, "Panic", 1, chunks, packed=packed)
    log = open_log(str(tmp_path))
    assert kernels(log.boots[0]) == [f"line {i}" for i in range(30)]
    assert log.problems == ()


def test_pstore_of_systemd(tmp_path):
    """In folders of their own, with the joined text beside them; the newest last."""
    for at, text in ((1_700_000_000, "old"), (1_800_000_000, "new")):
        folder = tmp_path / str(at)
        folder.mkdir()
        parts(folder, "Panic", 1, [f"<0>[    1.000000] {text}\n"], at=at)
        (folder / "dmesg.txt").write_text("unused\n")
    assert [kernels(boot) for boot in open_log(str(tmp_path)).boots] == [
        ["old"],
        ["new"],
    ]
    only_text = tmp_path / "x" / "1700000000"
    only_text.mkdir(parents=True)
    (only_text / "dmesg.txt").write_text("[    1.000000] joined\n")
    assert kernels(open_log(str(tmp_path / "x")).boots[0]) == ["joined"]


def test_an_oops_and_its_panic_are_one_log(tmp_path):
    parts(tmp_path, "Oops", 1, ["".join(LOG[:12]), "".join(LOG[12:20])])
    parts(tmp_path, "Panic", 2, ["".join(LOG[15:])], at=1_700_000_001)
    log = open_log(str(tmp_path))
    assert [kernels(boot) for boot in log.boots] == [[f"line {i}" for i in range(30)]]


def test_pstore_that_is_not_whole(tmp_path):
    parts(tmp_path, "Panic", 1, ["".join(LOG[:10]), "".join(LOG[10:20]), LOG[20]])
    (tmp_path / "dmesg-efi_pstore-170000000002001").unlink()
    (tmp_path / "dmesg-efi_pstore-170000000004001.enc.z").write_bytes(b"\x28\xb5/\xfd")
    log = open_log(str(tmp_path))
    assert len(kernels(log.boots[0])) == 11
    (compressed, _), (missing, why) = log.problems
    assert compressed == "a part of the log, dmesg-efi_pstore-170000000004001.enc.z"
    assert (missing, why) == (
        "a part of the log of Panic#1",
        "of 3 parts, 2 are missing",
    )


def test_console_of_ramoops(tmp_path):
    (tmp_path / "console-ramoops-0").write_text("[    1.000000] shown\n")
    assert kernels(open_log(str(tmp_path)).boots[0]) == ["shown"]


def test_other_folders_and_files(tmp_path):
    assert open_log(str(tmp_path)) is None
    (tmp_path / "md_KDUMP.BIN").write_bytes(bytes(4096))
    assert open_log(str(tmp_path)) is None
    assert open_log(str(tmp_path / "md_KDUMP.BIN")) is None
    assert open_log(str(tmp_path / "none")) is None
    assert open_log("qmp:/run/x.sock") is None
    assert detect_log(b"OSRELEASE=6.1.0\nPAGESIZE=4096\n") is None
    assert detect_log(b"\x7fELF") is None
    assert detect_log(b"random\0" * 1000) is None
    # What a file system left of a log when the power went.
    assert detect_log(b"[    1.000000] a\n" + bytes(9) + b"\n" * 90) is LogFormat.TEXT
    assert detect_log(b"\x7fELF" + bytes(range(256)) * 20) is None


@pytest.mark.parametrize(
    "magic",
    [b"KDUMP   ", b"LibvirtQemudSave\2\0\0\0", b"QEVM", b"EMiL", b"\x7fELF", b"AVML"],
)
def test_what_says_that_it_is_a_dump(tmp_path, magic):
    """It may go on with text: libvirt puts the domain's XML before the memory."""
    (tmp_path / "saved").write_bytes(magic + b"<domain type='kvm'>\n" * 1000)
    assert open_log(str(tmp_path / "saved")) is None


def test_a_binary_journal(tmp_path):
    file = tmp_path / "a system.journal"
    file.write_bytes(b"LPKSHHRH" + bytes(500))
    with pytest.raises(TargetError, match=f"journalctl --file '{file}' -k -o export"):
        open_log(str(file))


def test_compressed(tmp_path):
    file = tmp_path / "kern.log.2.gz"
    file.write_bytes(gzip.compress(RAW.encode()))
    assert kernels(open_log(str(file)).boots[0]) == OWN
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(FormatError, match="compressed, and damaged"):
        open_log(str(file))
    file.write_bytes(gzip.compress(bytes(range(256)) * 99))
    assert open_log(str(file)) is None


def test_utf_16():
    text = "[    1.000000] BUG: ä\r\n"
    assert only_boot(b"\xff\xfe" + text.encode("utf-16-le"))[0].text == "BUG: ä"


def test_the_end_of_a_huge_log(tmp_path, monkeypatch):
    monkeypatch.setattr("kmemdump.logs.read.MAX_LOG", 1 << 20)
    line = b"[    1.000000] " + b"x" * 84 + b"\n"
    file = tmp_path / "serial.log"
    file.write_bytes(line * 40_000 + b"[    2.000000] Kernel panic\n")
    log = open_log(str(file))
    assert sum(len(boot) for boot in log.boots) == (1 << 20) // 100 + 1
    assert log.boots[-1][-1].text == "Kernel panic"
    assert log.problems == (("the start of the log", "only the last 1 MiB are read"),)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f"cat {file} > {fifo}"]):
        assert open_log(str(fifo)).boots[-1][-1].text == "Kernel panic"
    assert MAX_LOG == 64 << 20


@given(st.binary(max_size=3000))
def test_any_bytes(data):
    for head in (
        b"",
        b"__CURSOR=1\n",
        b'{"MESSAGE":',
        b"6,1,1,-;x\n",
        b"[    1.000000] ",
    ):
        try:
            log = parse_log(head + data, "x")
        except KmemdumpError:
            continue
        else:
            assert sum(len(boot) for boot in log.boots) <= 2 * len(data) + 9


@given(st.text(max_size=300))
def test_lines_stay_lines(text):
    lines = parse_text("a\n" + text)
    assert not any("\n" in line.text or "\x1b" in line.text for line in lines)
    numbers = [line.number for line in lines]
    assert numbers == sorted(numbers)


def test_real_deaths_are_read_whole(tmp_path):
    """Each line that is not a program's is the kernel's."""
    for name, data in sorted(log_files("deaths").items())[::8]:
        file = tmp_path / name
        file.write_bytes(data)
        log = open_log(str(file))
        lines = [line for boot in log.boots for line in boot]
        stamped = sum(
            "] " in line for line in file.read_text("utf-8", "replace").split("\n")
        )
        assert len(kernels(lines)) >= min(stamped, len(lines)) * 0.7, file.name


def test_blanks_within_a_later_line_stay():
    text = "".join(f"[    1.00000{i}] a\n" for i in range(5))
    line = "total" + " " * 14 + "free"
    assert only_boot(f"{text}{' ' * 15}{line}\n")[-1].text == line


@pytest.mark.parametrize(
    "bait",
    [
        b"6,1,1,-;hello\n" + b"1" * 1_000_000,
        b"[    1.000000] a\n" * 9 + b" " * 12 + b"x" + b" " * 1_000_000,
        b"[    0.000000] Linux version 6.1\n" * 200_000,
        b" " * 60_000 + b"{x",
    ],
    ids=["digits", "blanks", "boots", "JSON"],
)
def test_time_is_in_proportion(bait):
    before = time.process_time()
    with suppress(KmemdumpError):
        parse_log(bait, "x")
    assert time.process_time() - before < 4e-6 * len(bait)


def test_many_parts_that_are_compressed(tmp_path):
    """4 MiB each: memory and time for the first of them only."""
    for number in range(100):
        record = b"Panic#1 Part%d\n" % (number + 1) + b"a" * (4 << 20)
        name = f"dmesg-ramoops-{number}.enc.z"
        (tmp_path / name).write_bytes(zlib.compress(record, 9))
    log = open_log(str(tmp_path))
    what = [what for what, _ in log.problems]
    assert any("and what follows" in it for it in what)
