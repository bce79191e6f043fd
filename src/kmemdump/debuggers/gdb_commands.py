# SPDX-License-Identifier: GPL-2.0-or-later
"""
Commands for gdb on a kernel's core: ``log`` and ``tasks``.

gdb runs this file in its own Python, of any version, so nothing of ours is imported.
gdb knows the structures from the vmlinux.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gdb

_MAX_TASKS = 1 << 17
_MAX_TEXT = 1 << 16
_MAX_COUNT_BITS, _MAX_SIZE_BITS = 22, 31  # As in kernel/printk.py.
_NO_TEXT = 3  # EMPTY_LINE_LPOS of kernel/printk/printk_ringbuffer.h
_ULONG_MAX = (1 << 64) - 1
_ID_MASK = (1 << 62) - 1
_ESCAPED = {
    code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))
}


def _read(address: int, size: int) -> bytes:
    return bytes(gdb.selected_inferior().read_memory(address, size))


def _plain(data: bytes) -> str:
    """Return a dead kernel's string, with control characters escaped."""
    return data.decode("utf-8", "backslashreplace").translate(_ESCAPED)


def _records() -> Iterator[tuple[int, bytes]]:
    """Iterate over the records of the kernel log: time in nanoseconds, text."""
    # The ring of Linux kernel commit 896fbe20b4e2 ("printk: use the lockless
    # ringbuffer") (in v5.10).
    ring = gdb.parse_and_eval("*prb")
    descs, texts = ring["desc_ring"], ring["text_data_ring"]
    count_bits, bits = int(descs["count_bits"]), int(texts["size_bits"])
    if count_bits > _MAX_COUNT_BITS or bits > _MAX_SIZE_BITS:
        raise gdb.GdbError(
            f"the log is damaged: 2^{count_bits} records and 2^{bits} bytes of text"
        )
    count = 1 << count_bits
    size = 1 << bits
    data = int(texts["data"])
    first = int(descs["tail_id"]["counter"]) & _ID_MASK
    last = int(descs["head_id"]["counter"]) & _ID_MASK
    for number in range(min(((last - first) & _ID_MASK) + 1, count)):
        place = (first + number) & (count - 1)
        desc, info = descs["descs"][place], descs["infos"][place]
        state = int(desc["state_var"]["counter"]) & _ULONG_MAX
        if state >> 62 not in (1, 2):
            continue  # Not yet complete, or free.
        begin = int(desc["text_blk_lpos"]["begin"])
        end = int(desc["text_blk_lpos"]["next"])
        text = b""
        if begin & 1:
            if begin != _NO_TEXT:
                continue  # Its text was overwritten.
        else:
            # A block that would wrap around is at the start. A block may end where the
            # ring does since Linux kernel commit 67e1b0052f6b ("printk_ringbuffer:
            # don't needlessly wrap data blocks around") (in v6.19); before, it wrapped.
            if begin >> bits != ((end - 1) & _ULONG_MAX) >> bits:
                begin = 0
            begin &= size - 1
            length = min(int(info["text_len"]), size - begin - 8, _MAX_TEXT)
            # The id of its descriptor comes before the text.
            text = _read(data + begin + 8, length) if length > 0 else b""
        yield int(info["ts_nsec"]), text


class _LogCommand(gdb.Command):  # type: ignore[misc]
    """Print the kernel log."""

    def __init__(self) -> None:
        super().__init__("log", gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        for time, text in _records():
            stamp = f"[{time // 10**9:5d}.{time % 10**9 // 1000:06d}] "
            for line in text.split(b"\n"):
                print(stamp + _plain(line))


def _tasks() -> Iterator[Any]:
    """Iterate over all tasks, and the threads of each."""
    task_type = gdb.lookup_type("struct task_struct")
    pointer = task_type.pointer()
    init = gdb.parse_and_eval("&init_task").cast(pointer)
    offset = _offset(task_type, "tasks")
    yield init
    entry = init["tasks"]["next"]
    for _ in range(_MAX_TASKS):
        task = gdb.Value(int(entry) - offset).cast(pointer)
        if int(task) == int(init):
            return
        yield from _threads(task, task_type, pointer)
        entry = task["tasks"]["next"]


def _threads(leader: Any, task_type: Any, pointer: Any) -> Iterator[Any]:
    # A separate list since Linux kernel commit 0c740d0afc3b ("introduce
    # for_each_thread() to replace the buggy while_each_thread()") (in v3.14).
    offset = _offset(task_type, "thread_node")
    # Only the address of the head is needed, since the leader is first.
    head = int(leader["signal"]["thread_head"].address)
    task = leader
    for _ in range(_MAX_TASKS):
        yield task
        entry = int(task["thread_node"]["next"])
        if entry == head:
            return
        task = gdb.Value(entry - offset).cast(pointer)


def _offset(task_type: Any, member: str) -> int:
    return int(task_type[member].bitpos) // 8


def _state(task: Any) -> str:
    # Renamed by Linux kernel commit 2f064a59a11f ("sched: Change task_struct::state")
    # (in v5.14).
    try:
        state = int(task["__state"])
    except gdb.error:
        state = int(task["state"])
    if state & 0x402 == 0x402:  # TASK_NOLOAD beside TASK_UNINTERRUPTIBLE
        return "I"
    bits = (state | int(task["exit_state"])) & 0x7F
    return "RSDTtXZP"[bits.bit_length()]


def _cpu(task: Any) -> str:
    # Moved by Linux kernel commit bcf9033e5449 ("sched: move CPU field back into
    # thread_info if THREAD_INFO_IN_TASK=y") (in v5.16).
    try:
        return str(int(task["thread_info"]["cpu"]))
    except gdb.error:
        pass
    try:
        return str(int(task["cpu"]))
    except gdb.error:
        return "?"


class _TasksCommand(gdb.Command):  # type: ignore[misc]
    """Print all tasks: process id, state, last CPU, address, name."""

    def __init__(self) -> None:
        super().__init__("tasks", gdb.COMMAND_DATA)

    def invoke(self, argument: str, from_tty: bool) -> None:
        print("    PID  S  CPU  TASK              COMM")
        for task in _tasks():
            comm = _plain(_read(int(task["comm"].address), 16).split(b"\0")[0])
            place = f"{_state(task)}  {_cpu(task):>3}  {int(task):016x}"
            print(f"{int(task['pid']):7d}  {place}  {comm}")


_LogCommand()
_TasksCommand()
