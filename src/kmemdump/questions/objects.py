# SPDX-License-Identifier: GPL-2.0-or-later
"""
Loops over the kernel's objects, of which only those that changed are looked at again.

    for task in each("tasks", for_each_task(prog)):
        print(task.comm.string_())

A look at a kernel puts all questions once; the next one leaves out the objects of which
no byte changed that the loop's body read. The body must depend on nothing but its
object, and on what does not change while the kernel runs, and must read all that it
needs of the object before the next one comes. Everywhere else, this is the iterable
itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from drgn import Object, TypeKind

from kmemdump.memory.recorder import current_recorder

__all__ = ["each", "identity"]

T = TypeVar("T")


def each(name: str, items: Iterable[T]) -> Iterator[T]:
    """
    Yield the items of a loop that are looked at.

    :param name: Names the loop among those of one question.
    :param items: Objects of drgn, other values that can be keys, or tuples of these. A
        list that ends early, by ``islice()``, ends inside, not around this.
    """
    recorder = current_recorder()
    if recorder is None or not recorder.begin_loop(name):
        yield from items
        return
    try:
        for item in items:
            if recorder.begin_part((name, identity(item))):
                yield item
                recorder.end_part()
    finally:  # The loop's body may have broken off.
        recorder.end_part()
        recorder.end_loop()


def identity(item: object) -> Hashable:
    """Return what tells an item of a loop from all others: addresses."""
    if isinstance(item, tuple):
        return tuple(map(identity, item))
    if not isinstance(item, Object):
        return item
    is_place = item.address_ is not None and item.type_.kind != TypeKind.POINTER
    value: int = item.address_ if is_place else item.value_()
    return value
