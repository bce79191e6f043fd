# SPDX-License-Identifier: GPL-2.0-or-later
"""Attaching to a kernel: whole, damaged, without symbols, with debug info."""

import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from drgn.helpers.linux.mm import page_to_phys, vmalloc_to_page
from drgn.helpers.linux.module import for_each_module
from drgn.helpers.linux.pid import for_each_task

from kmemdump.arch.architecture import image_address
from kmemdump.areas import choose_areas
from kmemdump.areas.modules import MODULES
from kmemdump.errors import FormatError, NotCapturedError
from kmemdump.kernel.attach import attach, debug_file_build_id
from kmemdump.kernel.loaded_modules import loaded_modules
from kmemdump.marking.mark import mark
from kmemdump.memory.physical import Memory
from kmemdump.memory.ranges import Range
from kmemdump.opening import open_target
from kmemdump.questions.crash_commands import command
from kmemdump.questions.question import answer
from kmemdump.targets import Target
from kmemdump.vmcoreinfo import VmcoreInfo
from rigs.dead_machine import DeadMachine
from rigs.scenarios import each_series, each_series_once


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda path: None, "No such file or directory"),
        (Path.mkdir, "not a regular file, expected a vmlinux"),
        (make_fifo, "not a regular file, expected a vmlinux"),
        (Path.touch, "not an ELF file"),
        (lambda path: path.write_text("hello"), "not an ELF file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    ],
)
def test_a_debug_file_that_is_none(make, problem, tmp_path):
    path = tmp_path / "vmlinux"
    make(path)
    with pytest.raises(FormatError, match=f"^{path}: {problem}"):
        debug_file_build_id(path)


class Altered:
    """A target some of whose memory is different, or gone."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.name, self.machine = target.name, target.machine
        self.memory: Memory = self
        self.info = target.vmcoreinfo()
        self.words: dict[int, int] = {}
        self.gone: list[Range] = []

    def vmcoreinfo(self) -> VmcoreInfo:
        return self.info

    def registers(self) -> list[bytes]:
        return []

    @property
    def ranges(self) -> Sequence[Range]:
        return self._target.memory.ranges

    def read(self, address: int, size: int) -> bytes:
        for item in self.gone:
            if address < item.end and item.start < address + size:
                raise NotCapturedError(f"the test does not hold {item.start:#x}")
        data = bytearray(self._target.memory.read(address, size))
        for place, value in self.words.items():
            if address <= place <= address + size - 8:
                struct.pack_into("<Q", data, place - address, value)
        return bytes(data)

    def close(self) -> None:
        self._target.close()


@pytest.fixture
def altered(dead: DeadMachine):
    target = Altered(open_target(f"qmp:{dead.machine.qmp}"))
    yield target
    target.close()


def physical(target: Altered, virtual: int) -> int:
    """Where a symbol of the kernel's image lies."""
    info = target.info
    return image_address(info, virtual)


@each_series_once
def test_a_looping_list_of_modules(dead: DeadMachine, altered: Altered) -> None:
    prog = attach(altered).prog
    first, second = list(for_each_module(prog))[:2]
    place = first.list.next.address_of_().value_()
    assert prog.read(place, 8) == struct.pack("<Q", second.list.address_of_().value_())
    page = page_to_phys(vmalloc_to_page(prog, place)).value_()
    altered.words[page + place % 4096] = first.list.address_of_().value_()  # To itself.
    kernel = attach(altered)  # Costs the traces through modules, no more.
    assert answer(kernel.prog, command("sys"))
    assert len(list(for_each_task(kernel.prog))) > 50


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "again"])
@each_series_once
def test_without_registers(dead: DeadMachine, altered: Altered, lasting: bool) -> None:
    marks = mark(attach(altered, lasting=lasting), choose_areas(["stacks"]))
    questions = {it.text: it for area in marks.areas for it in area.questions}
    assert "registers for CPU" in (questions["bt -a"].reason or "")
    assert questions["bt -a"].without_registers


@each_series
def test_without_kallsyms(dead: DeadMachine, altered: Altered) -> None:
    start = physical(altered, altered.info.symbol("kallsyms_token_table"))
    altered.gone.append(Range(start, 256))
    kernel = attach(altered)
    assert kernel.own_debug_info.found is None
    assert kernel.problem is not None
    assert "no kallsyms in the kernel's memory" in kernel.problem
    release = dead.machine.setup.kernel.release
    assert f"give the debug file of {release} with --vmlinux" in kernel.problem
    marks = mark(kernel, choose_areas(["kmsg", "tasks"]))
    by_name = {area.name: area for area in marks.areas}
    assert by_name["kmsg"].reason is None
    assert by_name["tasks"].reason is not None


@each_series
def test_without_kallsyms_but_with_debug_info(
    dead: DeadMachine, altered: Altered
) -> None:
    start = physical(altered, altered.info.symbol("kallsyms_token_table"))
    altered.gone.append(Range(start, 256))
    kernel = attach(altered, vmlinux=dead.vmlinux, self_contained=True)
    assert kernel.problem is None
    assert "sleep" in answer(kernel.prog, command("ps"))


@each_series
def test_damaged_btf(dead: DeadMachine, altered: Altered) -> None:
    known = attach(altered)
    start = known.prog.symbol("__start_BTF").address
    altered.words[physical(altered, start)] = 0x1122334455667788
    kernel = attach(altered)
    assert kernel.problem is not None
    assert "magic 0x7788" in kernel.problem
    assert kernel.own_debug_info.found is None


@each_series_once
def test_another_kernels_debug_file(
    dead: DeadMachine, altered: Altered, vmlinux: Callable[..., Path]
) -> None:
    other = "newest" if dead.scenario.kernel == "6.12" else "6.12"
    with pytest.raises(FormatError, match=r"build id .*, but the kernel is \d"):
        attach(altered, vmlinux=vmlinux(other))


@each_series_once
def test_what_is_known_is_not_read_again(dead: DeadMachine, altered: Altered) -> None:
    first = attach(altered)
    again = attach(altered, known=first)
    assert again.own_debug_info.found is first.own_debug_info.found
    assert again.own_debug_info.blocks == first.own_debug_info.blocks
    whole, rest = (
        sum(item.size for item in kernel.recorder.recording().ranges)
        for kernel in (first, again)
    )
    assert rest < whole / 2
    assert answer(again.prog, command("ps")) == answer(first.prog, command("ps"))


@each_series_once
def test_a_module_that_is_being_loaded(
    dead: DeadMachine, altered: Altered, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left out, as the kernel leaves it out, and no other module with it."""
    prog = attach(altered).prog
    modules = list(for_each_module(prog))
    assert len(modules) > 2
    names = [module.name.string_().decode() for module in modules]
    whole = answer(prog, command("mod"))
    assert all(name in whole for name in names)
    early = modules[1]
    # struct module begins with its state, and 4 bytes of nothing.
    assert prog.type("struct module").members[1].offset == 8
    values = {"state": prog.constant("MODULE_STATE_UNFORMED"), "kallsyms": 0}
    values |= {"sect_attrs": 0, "notes_attrs": 0}
    for name, value in values.items():
        place = early.member_(name).address_
        page = page_to_phys(vmalloc_to_page(prog, place)).value_()
        altered.words[page + place % 4096] = value
    caplog.clear()
    kernel = attach(altered)
    found = [module.value_() for module in loaded_modules(kernel.prog)]
    assert found == [module.value_() for module in modules if module is not early]
    (area,) = mark(kernel, [MODULES]).areas
    assert [it.reason for it in area.questions if it.reason] == []
    text = answer(kernel.prog, command("mod"))
    assert [name for name in names if name not in text] == [names[1]]
    assert "ignoring module" not in caplog.text
