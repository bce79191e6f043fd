# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP target, with a simulated QEMU in this process."""

import mmap
import os
import struct
import time

import pytest

from kmemdump.arch.architecture import arch_from_elf
from kmemdump.errors import (
    FormatError,
    NotCapturedError,
    TargetError,
    UnsupportedError,
)
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets.peer import Peer, peer_of
from kmemdump.targets.qmp import QmpTarget
from kmemdump.targets.qmp_registers import parse_registers
from rigs.fake_qemu import GONE, HANG, FakeQemu, Refusal
from rigs.synthetic import note, prstatus, vmcoreinfo, vmcoreinfo_note

INFO = vmcoreinfo()


@pytest.fixture
def qemu(tmp_path):
    notes = b"".join(note(b"CORE", 1, prstatus(cpu)) for cpu in range(3))
    server = FakeQemu(tmp_path / "qmp", notes=notes + note(b"QEMU", 0, bytes(440)))
    server.ram[:] = bytes(i * 7 & 255 for i in range(4096)) * (server.size // 4096)
    yield server
    server.close()


@pytest.fixture
def shared(qemu, tmp_path):
    qemu.file = tmp_path / "ram"
    qemu.file.write_bytes(qemu.ram[:])
    return qemu


def test_memory_through_the_process(qemu):
    target = open_target(f"qmp:{qemu.path}")
    assert target.machine == 62
    assert target.memory.ranges == [Range(0, 1 << 20)]
    qemu.ram[0x4321:0x4325] = b"test"
    assert target.memory.read(0x4320, 8) == qemu.ram[0x4320:0x4328]
    with pytest.raises(NotCapturedError):
        target.memory.read((1 << 20) - 4, 8)
    target.close()


def test_memory_in_a_file(shared):
    target = open_target(f"qmp:{shared.path}")
    assert target.memory.read(0x2001, 100) == shared.ram[0x2001:0x2065]
    # It is the file that is read.
    with shared.file.open("r+b") as file:
        file.seek(0x3000)
        file.write(b"changed")
    assert target.memory.read(0x3000, 7) == b"changed"
    assert "gpa2hva" not in str(shared.asked)
    target.close()


def test_file_with_other_contents_is_not_used(shared):
    shared.file.write_bytes(bytes(1 << 20))
    target = open_target(f"qmp:{shared.path}")
    assert target.memory.read(0x3000, 9) == shared.ram[0x3000:0x3009]
    target.close()


@pytest.mark.parametrize("what", ["missing", "short", "folder", "fifo"])
def test_file_that_cannot_be_used(shared, what):
    shared.file.unlink()
    match what:
        case "short":
            shared.file.write_bytes(b"x")
        case "folder":
            shared.file.mkdir()
        case "fifo":
            os.mkfifo(shared.file)
    target = open_target(f"qmp:{shared.path}")
    assert target.memory.read(0x3000, 9) == shared.ram[0x3000:0x3009]
    shared.hmp["gpa2hva"] = "Memory at address 0x0 is not RAM\r\n"
    target.close()
    with pytest.raises(TargetError, match="memory-backend-file,share=on") as caught:
        open_target(f"qmp:{shared.path}")
    assert "is not RAM" in str(caught.value)


def test_process_of_another(qemu):
    other = mmap.mmap(-1, 1 << 20)
    qemu.hmp["xp"] = "0000000000000000: " + "0xaa " * 64
    with pytest.raises(TargetError, match="does not hold what QEMU reads"):
        open_target(f"qmp:{qemu.path}")
    other.close()


def as_user(monkeypatch, user):
    """Let another user listen at the socket."""

    def found(connection):
        return peer_of(connection)._replace(uid=user)

    monkeypatch.setattr("kmemdump.targets.qmp_client.peer_of", found)


@pytest.mark.parametrize("path", ["its own", "a link"])
def test_a_file_of_another_user_is_not_read(shared, monkeypatch, tmp_path, path):
    """What listens knows its contents, as of a well known file's beginning."""
    as_user(monkeypatch, 12345)
    shared.file.chmod(0o644)
    if path == "a link":
        link = tmp_path / "link"
        link.symlink_to(shared.file)
        shared.file = link
    shared.hmp["gpa2hva"] = "Memory at address 0x0 is not RAM\r\n"
    with pytest.raises(
        TargetError, match=r"is a file of user \d+, and QEMU's socket is"
    ):
        open_target(f"qmp:{shared.path}")


@pytest.mark.parametrize("way", ["owner", "all may write", "root listens"])
def test_a_file_that_the_other_end_may_write(shared, monkeypatch, way):
    owner = shared.file.stat().st_uid
    as_user(monkeypatch, {"owner": owner, "root listens": 0}.get(way, 12345))
    shared.file.chmod(0o666 if way == "all may write" else 0o600)
    with open_target(f"qmp:{shared.path}") as target:
        assert target.memory.read(0x2001, 100) == shared.ram[0x2001:0x2065]
    assert "gpa2hva" not in str(shared.asked)


def test_a_process_of_another_user_is_not_read(qemu, monkeypatch):
    """The thread of a vCPU that a server names may be anyone's."""
    qemu.answers["query-cpus-fast"] = [{"thread-id": os.getpid()}]
    monkeypatch.setattr(
        "kmemdump.targets.qmp_client.peer_of", lambda _: Peer(0, 12345, 12345)
    )
    with pytest.raises(TargetError, match="its process is not known on this host"):
        open_target(f"qmp:{qemu.path}")
    monkeypatch.setattr(
        "kmemdump.targets.qmp_client.peer_of", lambda _: Peer(0, os.geteuid(), 0)
    )
    open_target(f"qmp:{qemu.path}").close()


def test_many_ranges_end_soon(qemu):
    """A server may claim any number of ranges, and of backends."""
    lines = "".join(
        f"  {i << 20:016x}-{(i << 20) + 0xFFFFF:016x} (prio 0, ram): pc.ram KVM\n"
        for i in range(60_000)
    )
    qemu.hmp["info"] = (
        'FlatView #0\n AS "memory", root: system\n Root memory region: system\n' + lines
    )
    objects = [
        {"name": f"m{i}", "type": "child<memory-backend-ram>"} for i in range(4000)
    ]
    objects.append({"name": "pc.ram", "type": "child<memory-backend-ram>"})
    qemu.answers["qom-list"] = objects
    started = time.process_time()
    with pytest.raises(TargetError, match="60000 ranges of RAM, expected at most 1024"):
        open_target(f"qmp:{qemu.path}")
    assert time.process_time() - started < 10


def test_guest_that_writes_all_the_time_is_believed(qemu):
    def examine(line: str) -> str:
        address = int(line.split()[2], 0)
        qemu.ram[address] = (qemu.ram[address] + 1) % 256
        return "0: 0xaa"

    qemu.hmp["xp"] = examine
    open_target(f"qmp:{qemu.path}").close()


def test_registers(qemu):
    target = QmpTarget(qemu.path)
    assert target.registers() == [prstatus(cpu) for cpu in range(3)]
    qemu.answers["query-status"] = iter_answers(
        {"status": "running"}, {"status": "save-vm"}
    )
    assert "cont" not in qemu.asked
    target.registers()
    assert qemu.asked.count("cont") == 1
    qemu.answers["query-status"] = {"status": "paused"}
    qemu.notes = b"\xff" * 64
    with pytest.raises(FormatError):
        target.registers()
    qemu.answers["dump-guest-memory"] = Refusal("dump: no guest memory to dump")
    with pytest.raises(TargetError, match="no guest memory"):
        target.registers()
    target.close()


LIBVIRT = [{"label": "charserial0"}, {"label": "charmonitor"}]
REGISTERS = """\
\r
CPU#0\r
RAX=0000000000000001 RBX=0000000000000002 RCX=0000000000000003 RDX=0000000000000004
RSI=0000000000000005 RDI=0000000000000006 RBP=0000000000000007 RSP=ffffc90000013e00
R8 =0000000000000008 R9 =0000000000000009 R10=000000000000000a R11=000000000000000b
R12=000000000000000c R13=000000000000000d R14=000000000000000e R15=000000000000000f
RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 ffffffff 00c00000
CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]
SS =0018 0000000000000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 0000000000000000 ffffffff 00c00000
FS =0000 0000000000000000 ffffffff 00c00000
GS =0000 ffff88803ea00000 ffffffff 00c00000
"""


def test_libvirt_hears_of_no_dump(qemu):
    """Its daemon would die of the event."""
    qemu.answers["query-chardev"] = LIBVIRT
    mtree = qemu.hmp["info"]
    qemu.hmp["info"] = lambda line: REGISTERS if line.endswith("-a") else mtree
    qemu.answers["query-status"] = iter_answers(
        *({"status": it} for it in ("running", "paused", "paused", "running")),
        {"status": "guest-panicked"},
    )
    data = vmcoreinfo_note(INFO)
    qemu.ram[0x8000 : 0x8000 + len(data)] = data
    target = QmpTarget(qemu.path)
    (cpu,) = target.registers()
    assert (qemu.asked.count("stop"), qemu.asked.count("cont")) == (1, 1)
    values = struct.unpack("<27Q", cpu[112:328])
    assert values[:3] == (15, 14, 13)
    assert values[15:17] == (0, 0xFFFFFFFF81000000)
    assert values[19] == 0xFFFFC90000013E00
    assert values[22] == 0xFFFF88803EA00000
    assert target.vmcoreinfo().raw == INFO  # The VM is paused, and stays so.
    assert (qemu.asked.count("stop"), qemu.asked.count("cont")) == (1, 1)
    target.registers()  # It dies meanwhile, and is not woken up.
    assert (qemu.asked.count("stop"), qemu.asked.count("cont")) == (2, 1)
    assert "dump-guest-memory" not in qemu.asked
    target.close()


@pytest.mark.parametrize("text", ["", "CPU#0\nEAX=00000000 EIP=0000fff0\n"])
def test_registers_that_are_none(text):
    with pytest.raises(FormatError, match=r"no CPU|has no 'R15', expected 64-bit mode"):
        parse_registers(text, arch_from_elf(62), "vm")


@pytest.mark.parametrize("answer", [[], {}, [5], [{}], [{"label": "serial0"}], None])
def test_no_libvirt(qemu, answer):
    if answer is not None:
        qemu.answers["query-chardev"] = answer
    target = QmpTarget(qemu.path)
    assert len(target.registers()) == 3
    target.close()


def iter_answers(*answers: object):
    values = iter(answers)
    return lambda _arguments: next(values)


def test_vmcoreinfo_that_qemu_knows(qemu):
    qemu.notes = vmcoreinfo_note(INFO)
    target = QmpTarget(qemu.path)
    assert target.vmcoreinfo().raw == INFO
    qemu.notes = b""
    assert target.vmcoreinfo().raw == INFO  # Kept.
    target.close()


@pytest.mark.parametrize("dump", [Refusal("no"), None])
def test_vmcoreinfo_in_memory(qemu, dump):
    if dump is not None:
        qemu.answers["dump-guest-memory"] = dump
    target = QmpTarget(qemu.path)
    with pytest.raises(TargetError, match="no VMCOREINFO in the VM's memory"):
        target.vmcoreinfo()
    data = vmcoreinfo_note(INFO)
    qemu.ram[0x8000 : 0x8000 + len(data)] = data
    assert target.vmcoreinfo().raw == INFO
    target.close()


def test_vmcoreinfo_that_a_person_gives(qemu, tmp_path):
    path = tmp_path / "info"
    path.write_bytes(vmcoreinfo("6.6.6-given"))
    target = open_target(f"qmp:{qemu.path}", vmcoreinfo=path)
    assert target.vmcoreinfo().osrelease == "6.6.6-given"
    target.close()


def test_state(qemu):
    target = QmpTarget(qemu.path)
    assert target.status() == "running"
    target.stop()
    target.cont()
    assert qemu.asked[-2:] == ["stop", "cont"]
    qemu.answers["query-status"] = []
    with pytest.raises(TargetError, match="no status in the answer"):
        target.status()
    target.close()


@pytest.mark.parametrize(
    ("command", "answer", "problem"),
    [
        ("query-target", {"arch": "riscv64"}, "architecture riscv64"),
        ("query-target", [], "architecture None"),
        ("query-target", HANG, "query-target: no answer"),
        ("query-target", GONE, "query-target: the VM went away"),
        ("qom-list", GONE, "qom-list: the VM went away"),
        ("qom-list", [], "no RAM in the address space"),
        ("qom-list", {"a": 1}, "no RAM in the address space"),
        ("qom-list", [1, None, "x"], "no RAM in the address space"),
        ("human-monitor-command", 5, "answer is no text"),
        ("human-monitor-command", "unknown command", 'no address space "memory"'),
    ],
)
def test_answers_that_are_wrong(qemu, command, answer, problem):
    qemu.answers[command] = answer
    with pytest.raises((TargetError, UnsupportedError, FormatError), match=problem):
        QmpTarget(qemu.path, timeout=2.5 if answer is HANG else 60)


def test_cpus_that_are_wrong(qemu):
    for answer in ([5], [{}], [{"thread-id": "x"}], [{"thread-id": -1}], {"a": 1}):
        qemu.answers["query-cpus-fast"] = answer
        QmpTarget(qemu.path).close()


def test_aarch64(qemu):
    qemu.answers["query-target"] = {"arch": "aarch64"}
    qemu.notes = note(b"CORE", 1, prstatus(0, 392)) + note(b"CORE", 2, bytes(528))
    target = QmpTarget(qemu.path)
    assert target.machine == 183
    assert target.registers() == [prstatus(0, 392)]
    target.close()


def test_no_memory_map_for_a_vm(tmp_path):
    with pytest.raises(Exception, match="QEMU knows the memory map"):
        open_target(f"qmp:{tmp_path}/qmp", memory_map="0")
