# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a kernel by its log, in memory made by hand."""

import struct

import pytest

from kmemdump.diagnosis.end_patterns import OrderlyEnd
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.memory.physical import PageMemory
from kmemdump.vmcoreinfo import VmcoreInfo
from kmemdump.watch.liveness import KernelState
from kmemdump.watch.log_liveness import LogLiveness
from rigs.printk_ring import VMCOREINFO, Writer
from rigs.synthetic import PAGE, uts, vmcoreinfo
from rigs.writers.printk import COMMITTED, FINALIZED

MAP = 0xFFFF_FFFF_8000_0000
TABLES = 0x100000  # Of physical memory, like those below.
UTS = 0x180000
RING = 0x200000
INFO = VmcoreInfo.parse(
    vmcoreinfo(
        SYMBOL__swapper_pg_dir=f"{MAP + TABLES:x}", SYMBOL__init_uts_ns=f"{MAP + UTS:x}"
    )
    + VMCOREINFO.replace("SYMBOL(prb)=1000", f"SYMBOL(prb)={MAP + RING + 0x1000:x}")
    .replace("OSRELEASE=6.1.0\n", "")
    .encode(),
    "test",
)
HEALTHY = KernelState(True, False, False, True, False)
LEAVING = {"leaving": True, "booted": False}


class Kernel:
    """The memory of a kernel whose image is mapped by pages of 2 MiB."""

    def __init__(self):
        self.ring = Writer(6, 14)
        self.ring.facility = 0
        self.uts = uts()
        self.tables = True
        self.ring.write("Linux version 6.1.0-test")

    def memory(self):
        data = bytearray(0x400000)
        if self.tables:
            struct.pack_into("<Q", data, TABLES + 511 * 8, TABLES + PAGE | 0x63)
            struct.pack_into("<Q", data, TABLES + PAGE + 510 * 8, TABLES + 2 * PAGE | 3)
            for i in range(32):
                entry = i << 21 | 0xE3
                struct.pack_into("<Q", data, TABLES + 2 * PAGE + i * 8, entry)
        data[UTS : UTS + len(self.uts)] = self.uts
        for at, piece in self.ring.pieces().items():
            data[RING + at : RING + at + len(piece)] = piece
        # The addresses in the ring itself are those of the image.
        struct.pack_into("<Q", data, RING + 0x1000, MAP + RING + 0x2000)
        for at in (0x2008, 0x2010, 0x2000 + 48 + 8):
            (address,) = struct.unpack_from("<Q", data, RING + at)
            struct.pack_into("<Q", data, RING + at, MAP + RING + address)
        pages = range(len(data) // PAGE)
        return PageMemory({i: bytes(data[i * PAGE : (i + 1) * PAGE]) for i in pages})


def state_after(*texts, facility=0):
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    assert liveness.read(kernel.memory()) == HEALTHY
    kernel.ring.facility = facility
    for text in texts:
        kernel.ring.write(text)
    return liveness.read(kernel.memory())


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("Kernel panic - not syncing: sysrq triggered crash", {"panicked": True}),
        ("---[ end Kernel panic - not syncing: Fatal exception ]---", {"panicked": 1}),
        ("BUG: kernel NULL pointer dereference, address: 0", {"oopsed": True}),
        ("Internal error: Oops: 0000000096000046 [#1] SMP", {"oopsed": True}),
        ("reboot: Restarting system", LEAVING | {"end": OrderlyEnd.RESTART}),
        ("reboot: Power down", LEAVING | {"end": OrderlyEnd.POWER_OFF}),
        ("kexec_core: Starting new kernel", LEAVING | {"end": OrderlyEnd.KEXEC}),
        ("sysrq: Resetting", {}),
        ("softdog: Initiating system reboot", {}),
        ("systemd[1]: Kernel panic - not syncing", {}),
        ("WARNING: CPU: 0 PID: 1 at mm/x.c:1", {}),
        ("", {}),
    ],
)
def test_states(text, changed):
    values = {name: getattr(HEALTHY, name) for name in KernelState.__slots__}
    expected = KernelState(**(values | changed))
    assert state_after("first", text, "last") == expected
    # Anybody may write to /dev/kmsg, but not as the kernel.
    assert state_after("first", text, "last", facility=1) == HEALTHY


def test_an_emergency_is_not_orderly():
    """Whatever follows, and however much is logged in between."""
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    kernel.ring.write("reboot: HARDWARE PROTECTION shutdown (Temperature too high)")
    assert liveness.read(kernel.memory()) == HEALTHY
    for number in range(100):
        kernel.ring.write(f"line {number}")
    kernel.ring.write("reboot: Power down")
    assert liveness.read(kernel.memory()).end is None


def test_state_lasts():
    """Also if the ring wraps."""
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    kernel.ring.write("Kernel panic - not syncing: x")
    assert liveness.read(kernel.memory()).panicked
    for number in range(200):
        kernel.ring.write(f"line {number}")
    assert liveness.read(kernel.memory()).panicked


def test_line_that_is_just_written():
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    desc = kernel.ring.write("Kernel panic - not syncing: x", commit=False)
    assert not liveness.read(kernel.memory()).panicked
    desc.state = COMMITTED
    assert desc.state != FINALIZED
    assert liveness.read(kernel.memory()).panicked


def test_another_kernel():
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    kernel.uts = uts("6.12.0")
    kernel.ring.write("Kernel panic - not syncing: x")
    gone = KernelState(False, False, False, False, False)
    assert liveness.read(kernel.memory()) == gone
    kernel.tables = False
    assert liveness.read(kernel.memory()) == gone
    with pytest.raises(NotCapturedError):
        liveness.read(PageMemory({}))


def test_clock():
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    assert liveness.clock_watch(kernel.memory())()  # Never read: nothing is known.
    liveness.read(kernel.memory())
    moved = liveness.clock_watch(kernel.memory())
    assert not moved()
    kernel.ring.write("Linux version")
    assert liveness.clock_watch(kernel.memory())()
    assert liveness.log_head(kernel.memory()) != 0


def test_overwritten_name():
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    kernel.uts = bytes(len(kernel.uts))
    assert not liveness.read(kernel.memory()).same
    liveness.accept_name(kernel.memory())
    assert liveness.read(kernel.memory()) == HEALTHY


def test_damaged_ring():
    kernel = Kernel()
    liveness = LogLiveness(INFO, kernel.memory())
    kernel.ring.count_bits = 60
    assert liveness.read(kernel.memory()) == HEALTHY
    with pytest.raises(FormatError, match="not a log, or damaged"):
        LogLiveness(INFO, kernel.memory())
    kernel.tables = False
    with pytest.raises(NotCapturedError):
        LogLiveness(INFO, kernel.memory())
