# SPDX-License-Identifier: GPL-2.0-or-later
"""
The locks of a task, out of a program that has variables as lockdep has.

``tests/test_waits.py`` compares them with what a kernel lists.
"""

import shutil
import struct
import subprocess

import pytest
from drgn import Architecture, Platform, Program

from kmemdump.kernel.held_locks import has_lockdep, held_locks, lockdep_stopped
from kmemdump.kernel.symbol_at import place_of_code

START = 0xFFFFFFFF81000000

# The bits of usage_mask: Linux kernel/locking/lockdep_internals.h. A program as the
# kernel is at addresses that are negative.
SOURCE = """
struct lock_class {
	void *key; const char *name; int name_version; unsigned int subclass;
	unsigned long usage_mask; unsigned char wait_type_inner, wait_type_outer;
};
struct held_lock {
	unsigned long acquire_ip; void *instance;
	unsigned int class_idx:13; unsigned int read:2;
};
struct task_struct { int lockdep_depth; struct held_lock held_locks[48]; };

char a_map, b_map, c_map, key;
int debug_locks = 1;
void _start(void) { for (;;); }

struct lock_class lock_classes[16] = {
	[3] = { 0, "&mm->mmap_lock", 1, 0, 1 << 2 | 1 << 6, 4, 0 },
	[4] = { 0, "&rq->__lock", 2, 1, 1 << 0 | 1 << 2 | 1 << 1 | 1 << 4, 2, 3 },
	[9] = { &key, 0, 1, 0, 0, 3, 0 },
};
struct task_struct task = { 3, {
	{ (unsigned long)_start + 1, &a_map, 3 },
	{ (unsigned long)_start + 2, &b_map, 4, 2 },
	{ 16, &c_map, 9 },
	{ 1, &c_map, 8191 },
} };
struct task_struct idle, damaged = { 1 << 30 }, negative = { -1 };
"""


@pytest.fixture(scope="module")
def prog(tmp_path_factory):
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "a.c").write_text(SOURCE)
    options = ("-g", "-nostdlib", "-static", "-no-pie", "-fno-pic", "-mcmodel=kernel")
    options += (f"-Wl,-Ttext-segment={START:#x}",)
    subprocess.run(["gcc", *options, "a.c", "-o", "vmlinux"], cwd=folder, check=True)
    found = Program(Platform(Architecture.X86_64))
    path = folder / "vmlinux"
    module = found.extra_module("vmlinux", create=True)
    module.address_range = START, START + (1 << 24)
    module.try_file(path, force=True)
    data = path.read_bytes()
    (start,) = struct.unpack_from("<Q", data, 32)
    for number in range(*struct.unpack_from("<H", data, 56)):
        fields = struct.unpack_from("<IIQQQQQQ", data, start + 56 * number)
        kind, _, offset, address, _, in_file, size, _ = fields
        if kind == 1:
            part = data[offset : offset + in_file].ljust(size, b"\0")
            found.add_memory_segment(
                address,
                size,
                lambda _address, count, at, _physical, part=part: part[at : at + count],
            )
    return found


def test_locks_as_the_kernel_prints_them(prog):
    task = prog["task"].address_of_()
    b_map = prog["b_map"].address_
    awaited = {task.value_(): range(b_map, b_map + 1)}
    found = held_locks(task, awaited)
    assert [f"({it.name}){it.usage}" for it in found] == [
        "(&mm->mmap_lock){+.+.}-{4:4}",
        "(&rq->__lock#2/1){?--.}-{3:2}",
        "(key){....}-{3:3}",
    ]
    names = ("a_map", "b_map", "c_map")
    assert [it.address for it in found] == [prog[name].address_ for name in names]
    assert [it.waiting for it in found] == [False, True, False]
    places = [place_of_code(prog, it.code) for it in found]
    size = prog.symbol("_start").size
    assert [place.removesuffix(" [vmlinux]") for place in places] == [
        f"_start+0x1/{size:#x}",
        f"_start+0x2/{size:#x}",
        "0x10",
    ]


@pytest.mark.parametrize("name", ["idle", "negative"])
def test_no_locks(prog, name):
    assert held_locks(prog[name].address_of_(), {}) == []


def test_a_depth_that_no_kernel_has(prog):
    assert len(held_locks(prog["damaged"].address_of_(), {})) == 48


def test_what_lockdep_says_of_itself(prog):
    assert has_lockdep(prog)
    assert not has_lockdep(Program(Platform(Architecture.X86_64)))
    assert not lockdep_stopped(prog)
