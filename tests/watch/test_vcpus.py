# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU prints of its CPUs."""

from hypothesis import given
from hypothesis import strategies as st

from kmemdump.arch.architecture import arch_from_name
from kmemdump.targets.qmp_client import QmpClient
from kmemdump.watch.hang_detector import Vcpu
from kmemdump.watch.vcpus import VcpuThreads, parse_vcpus
from rigs.fake_qemu import FakeQemu, Refusal

# QEMU 7.2, qemu-system-x86_64, shortened.
X86 = """
CPU#0
RAX=000000000001ad40 RBX=0000000000000000 RCX=0000000000000001 RDX=4000000000000000
R12=0000000000000000 R13=0000000000000000 R14=0000000000000000 R15=0000000000014790
RIP=ffffffffb4217a0b RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1
ES =0000 0000000000000000 ffffffff 00c00000

CPU#1
RIP=000000000047b7a0 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0
CPU#2
what a newer version prints
"""

# QEMU 7.2, qemu-system-aarch64, shortened.
ARM = """
CPU#0
 PC=ffff8000091a5e5c X00=0000000000000000 X01=ffff80000a2d6008
X02=0000000000000000 X03=0000000000000001 X04=0000000000000000
PSTATE=60000005 -ZC- EL1h
CPU#1
 PC=0000aaaad5e51b3c X00=0000000000000000 X01=0000000000000000
PSTATE=80000000 N--- NS EL0t
"""


def test_x86():
    assert parse_vcpus(X86, arch_from_name("x86_64")) == [
        Vcpu(True, False, 0xFFFFFFFFB4217A0B, interrupts=True),
        Vcpu(False, True, 0x47B7A0, interrupts=True),
        None,
    ]


def test_aarch64():
    assert parse_vcpus(ARM, arch_from_name("aarch64")) == [
        Vcpu(None, False, 0xFFFF8000091A5E5C, interrupts=True),
        Vcpu(None, True, 0xAAAAD5E51B3C, interrupts=True),
    ]


def test_interrupts_off():
    texts = {
        "x86_64": X86.replace("RFL=00000246", "RFL=00000046"),
        "aarch64": ARM.replace("PSTATE=60000005", "PSTATE=600003c5"),
    }
    for name, text in texts.items():
        first, second, *_ = parse_vcpus(text, arch_from_name(name))
        assert (first.interrupts, second.interrupts) == (False, True)


@given(st.text("CPU#0123=RIHLTESA \n", max_size=300))
def test_any_text(text):
    for name in ("x86_64", "aarch64"):
        assert isinstance(parse_vcpus(text, arch_from_name(name)), list)


def test_numbers_that_no_vm_has(tmp_path):
    """QEMU refuses its registers, and says that there is a CPU two billion."""
    qemu = FakeQemu(tmp_path / "qmp")
    cpus = [{"cpu-index": it, "thread-id": 1} for it in (0, -1, 4096, 1 << 31)]
    qemu.answers["query-cpus-fast"] = cpus
    qemu.answers["human-monitor-command"] = Refusal("no")
    try:
        with QmpClient(qemu.path) as client:
            reader = VcpuThreads(client, arch_from_name("x86_64"))
            assert len(reader.read()) == 1
    finally:
        qemu.close()
