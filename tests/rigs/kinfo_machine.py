# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose firmware left a kinfo, and knows nothing of minidumps."""

from rigs.machine import SMEM, FakeMachine
from rigs.phone import PHYSICAL, Phone
from rigs.writers.kinfo import write_kinfo

__all__ = ["ADDRESSES", "PLACES", "WHERE", "machine_with"]

WHERE = 0x80340000
# All within the phone's image, in the order of a real one.
PLACES = {
    "_text": 0,
    "_stext": 0,
    "_etext": 0x100,
    "kallsyms_names": 0x200,
    "kallsyms_markers": 0x300,
    "kallsyms_token_table": 0x400,
    "kallsyms_token_index": 0x500,
    "kallsyms_offsets": 0x600,
    "kallsyms_relative_base": 0x700,
    "kallsyms_seqs_of_names": 0x800,
    "_sinittext": 0x900,
    "_einittext": 0xA00,
    "swapper_pg_dir": 0x8000,
    "_end": 0x10000,
}
ADDRESSES = {name: PHYSICAL + at for name, at in PLACES.items()}


def machine_with(
    layout: str = "series", relative: int = 1, **changed: int
) -> FakeMachine:
    """
    A machine whose firmware knows nothing of minidumps.

    :param relative: Whether kallsyms' offsets are relative to a base.
    """
    machine = Phone.with_log().machine()
    machine.put(SMEM.start, bytes(SMEM.size))
    machine.put(
        WHERE, write_kinfo(layout, image={**ADDRESSES, **changed}, relative=relative)
    )
    return machine
