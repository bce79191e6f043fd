# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel without VMCOREINFO opens like any other, whatever its memory is in."""

from types import SimpleNamespace

import pytest

from kmemdump.errors import TargetError
from kmemdump.kernel.attach import attach
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.targets import qmp as qmp_module
from kmemdump.targets.qmp import QmpTarget
from rigs.fake_qemu import FakeQemu
from rigs.synthetic import PAGE, elf_core, kdump, lime, vmcoreinfo_note
from rigs.writers.kernel_memory import MIB, RELEASE, SyntheticKernel

RAM = {"x86_64": 0, "aarch64": 0x80000000}
MACHINES = {"x86_64": 62, "aarch64": 183}


def as_image(kernel, path):
    path.write_bytes(kernel.memory)


def as_elf(kernel, path):
    machine = MACHINES[kernel.arch]
    path.write_bytes(elf_core([(kernel.ram, kernel.memory)], machine=machine))


def as_lime(kernel, path):
    path.write_bytes(lime([(kernel.ram, kernel.memory)]))


def as_kdump(kernel, path):
    frames = range(len(kernel.memory) // PAGE)
    pages = {
        kernel.ram // PAGE + i: bytes(kernel.memory[i * PAGE : (i + 1) * PAGE])
        for i in frames
    }
    machine = kernel.arch.encode()
    path.write_bytes(kdump(pages, machine=machine))


def as_folder(kernel, path):
    path.mkdir()
    half = len(kernel.memory) // 2
    (path / "DDRCS0.BIN").write_bytes(kernel.memory[:half])
    (path / "DDRCS1.BIN").write_bytes(kernel.memory[half:])
    lines = [f"d.load.binary DDRCS0.BIN {kernel.ram:#x} /noclear"]
    lines.append(f"d.load.binary DDRCS1.BIN {kernel.ram + half:#x} /noclear")
    (path / "load.cmm").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("write", [as_image, as_elf, as_lime, as_kdump, as_folder])
def test_any_dump(tmp_path, arch, write):
    kernel = SyntheticKernel(arch, ram=RAM[arch])
    path = tmp_path / "dump"
    write(kernel, path)
    with open_target(str(path)) as target:
        info = target.vmcoreinfo()
        assert not kernel.truth.items() - info.values.items()
        assert list(target.memory.ranges) == [Range(kernel.ram, kernel.size)]
        if write is not as_folder or arch == "aarch64":  # Phones have no other.
            assert target.machine == MACHINES[arch]
        if write is as_folder:
            assert target.dump.problems == ()
            assert list(target.aliases) == []  # The page table is whole.


@pytest.mark.parametrize("given", [False, True])
def test_a_kernel_that_encrypts_its_memory(tmp_path, given):
    """AMD's SME: addresses in page tables have a bit that is none of the address."""
    kernel = SyntheticKernel("x86_64", encrypted=1 << 47)
    info = "".join(f"{name}={value}\n" for name, value in kernel.truth.items())
    notes = vmcoreinfo_note(info.encode()) if given else b""
    (tmp_path / "core").write_bytes(elf_core([(0, kernel.memory)], notes))
    banner = kernel.parts["banner"]
    with open_target(str(tmp_path / "core")) as target:
        attached = attach(target)
        for virtual in (
            kernel.virtual(banner.start - kernel.place),
            kernel.direct + banner.start,
        ):
            found = attached.prog.read(virtual, len(banner))
            assert found == kernel.memory[banner.start : banner.stop]


def test_ram_may_start_anywhere(tmp_path):
    """The kernel's own variables say where."""
    kernel = SyntheticKernel("aarch64", ram=0x1_4000_0000)
    as_image(kernel, tmp_path / "ram")
    with open_target(str(tmp_path / "ram")) as target:
        assert list(target.memory.ranges) == [Range(kernel.ram, kernel.size)]
        assert target.vmcoreinfo().osrelease == RELEASE


def test_a_dump_without_the_lower_tables_keeps_its_aliases(tmp_path):
    kernel = SyntheticKernel("aarch64", ram=RAM["aarch64"])
    with_table = kernel.parts["lower tables"].start
    path = tmp_path / "dump"
    path.mkdir()
    (path / "part.BIN").write_bytes(kernel.memory[:with_table])
    (path / "load.cmm").write_text(f"d.load.binary part.BIN {kernel.ram:#x}\n")
    info = tmp_path / "info"
    info.write_text("".join(f"{k}={v}\n" for k, v in kernel.truth.items()))
    with open_target(str(path), vmcoreinfo=info) as target:
        assert target.aliases


@pytest.fixture
def qemu(tmp_path):
    kernel = SyntheticKernel("x86_64")
    fake = FakeQemu(tmp_path / "qmp", size=kernel.size)
    fake.ram[:] = bytes(kernel.memory)
    yield fake, kernel
    fake.close()


def test_a_vm(qemu):
    fake, kernel = qemu
    with QmpTarget(fake.path) as target:
        assert not kernel.truth.items() - target.vmcoreinfo().values.items()


def test_a_vm_that_boots_is_not_searched_in_a_loop(qemu, monkeypatch):
    fake, kernel = qemu
    state = kernel.parts["system_state"].start
    fake.ram[state] = 0  # SYSTEM_BOOTING
    searched = []
    search = qmp_module.find_by_contents

    def count(*arguments, **options):
        searched.append(arguments)
        return search(*arguments, **options)

    now = [1000.0]
    monkeypatch.setattr(qmp_module, "find_by_contents", count)
    clock = SimpleNamespace(monotonic=lambda: now[0])  # Of this module alone.
    monkeypatch.setattr(qmp_module, "time", clock)
    with QmpTarget(fake.path) as target:
        for _ in range(5):
            with pytest.raises(TargetError, match="no kernel found by its contents"):
                target.vmcoreinfo()
            target.forget()
        assert len(searched) == 1
        fake.ram[state] = 3
        now[0] += 5.0
        assert target.vmcoreinfo().osrelease == RELEASE
        assert len(searched) == 2


def test_a_paused_vm_need_not_have_booted(qemu):
    fake, kernel = qemu
    fake.ram[kernel.parts["system_state"].start] = 0
    fake.answers["query-status"] = {"status": "paused", "running": False}
    with QmpTarget(fake.path) as target:
        assert target.vmcoreinfo().osrelease == RELEASE


def test_what_is_no_kernel(tmp_path):
    kernel = SyntheticKernel("aarch64", ram=RAM["aarch64"])
    uts = kernel.parts["uts"].start
    kernel.memory[uts : uts + 16] = bytes(16)
    as_image(kernel, tmp_path / "ram")
    with pytest.raises(TargetError, match="no VMCOREINFO found in it"):
        open_target(str(tmp_path / "ram"))
    assert kernel.size >= MIB
