# SPDX-License-Identifier: GPL-2.0-or-later
"""
Names of symbols, as the source has them and as the compiler made them.

A compiler that optimises a whole program renames static functions and variables, so
that names stay unique when it makes them global. Nobody asks for them by those names,
and they differ from build to build. The kernel itself removed them until v6.11:
cleanup_symbol_name() in kernel/kallsyms.c, commits 8b8e6b5d3b01 (v5.13), 6eb4bd92c1ce
(v5.16), 8cc32a9bbf29 (v6.6), fb6a421fb615 (v6.11). In some versions it cut names at the
first dot, which takes parts and clones of a function for the function.
"""

from __future__ import annotations

import re

from kmemdump.formats.symbols import SymbolRow, SymbolTable

__all__ = ["base_name", "clone_of", "find_changed_names", "plain_name"]

# Parts of a name that say nothing about the function:
#   .llvm.974640843467629774      thin LTO of clang
#   .9af9a22804d33c81801f27dcfe489b  clang 13 and later, with old CFI; $… before that
#   .__uniq.1234                  -funique-internal-linkage-names (AutoFDO)
#   .lto_priv.0                   LTO of gcc
#   .cfi_jt, .cfi                 old CFI (until v6.1): the jump table's entry for a
#                                 function, and the function's own code
_INVENTED = re.compile(
    r"(?:\.llvm\.\d+|[.$][0-9a-f]{16,}|\.__uniq\.\d+|\.lto_priv\.\d+|\.cfi_jt|\.cfi)"
    r"(?=[.$]|$)"
)
# Whole functions that a compiler specialised. Others (.part, .cold) are parts of one.
_CLONE = re.compile(r"(?:\.(?:isra|constprop)\.\d+)+")


def plain_name(name: str) -> str:
    """
    Return a symbol's name without what a compiler added to keep it unique.

    The suffixes of clones and parts of a function (``.isra.0``, ``.part.0``, ``.cold``)
    stay, because a stack trace shows them.
    """
    if "." not in name and "$" not in name:
        return name
    return _INVENTED.sub("", name) or name


def clone_of(name: str) -> str | None:
    """Return the function of which a symbol is a whole copy; None if it is none."""
    plain = plain_name(name)
    base, dot, rest = plain.partition(".")
    return base if base and dot and _CLONE.fullmatch(dot + rest) else None


def find_changed_names(name: str, table: SymbolTable) -> list[SymbolRow]:
    """Return what the compiler made of a plain name: functions, or else clones."""
    base = re.split("[.$]", name, maxsplit=1)[0]
    rows = [*table.starting_with(f"{base}."), *table.starting_with(f"{base}$")]
    changed = [row for row in rows if plain_name(row.name) == name != row.name]
    return changed or [row for row in rows if clone_of(row.name) == name]


def base_name(name: str) -> str:
    """
    Return the name of the function in the source that a symbol is made of.

    To compare the functions on a stack: ``panic.cold`` is in ``panic``.
    """
    plain = plain_name(name)
    return plain.partition(".")[0] or plain
