# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the table of symbols that a kernel exports, as its linker lays it out."""

from collections.abc import Mapping

__all__ = ["write_ksymtab"]


def write_ksymtab(
    functions: Mapping[str, int], variables: Mapping[str, int], at: int
) -> bytes:
    """
    Return two tables, sorted by name, and the names, one of which ends another.

    :param functions: Names and offsets in the image, as for *variables*.
    :param at: Offset of the tables in the image.
    """
    tables = [sorted(functions.items()), sorted(variables.items())]
    names = b"\0" + b"".join(b"tail_of" + name.encode() + b"\0" for name in functions)
    names += b"".join(name.encode() + b"\0" for name in variables)
    text = at + 12 * (len(functions) + len(variables))
    out = b""
    for name, value in [*tables[0], *tables[1]]:
        place = at + len(out)
        of_name = text + names.index(name.encode() + b"\0")
        for i, target in enumerate((value, of_name, text)):
            out += (target - place - 4 * i).to_bytes(4, "little", signed=True)
    return out + names
