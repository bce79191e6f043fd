# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules of a kernel, without those that the kernel itself passes over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from drgn import Object, Program
from drgn.helpers.linux.module import for_each_module

from kmemdump.kernel.drgn_warnings import collected_warnings
from kmemdump.kernel.limits import MAX_MODULES

__all__ = ["loaded_modules", "without_early_warnings"]

_UNFORMED = "MODULE_STATE_UNFORMED"
_IGNORED = "ignoring module: "
"""How drgn's warning of a module that it does not understand begins."""


def loaded_modules(prog: Program) -> Iterator[Object]:
    """
    Yield the loaded modules (``struct module *``), the newest first.

    A module is in the kernel's list before its symbols and tables are there, and while
    it is taken apart. print_modules() and others that walk the list pass it over then,
    since Linux 0d21b0e34773 ("module: add new state MODULE_STATE_UNFORMED", v3.8).

    :raises LookupError: If the kernel has no modules.
    :raises FaultError: If the list cannot be read any more.
    """
    for module in islice(for_each_module(prog), MAX_MODULES):
        if not _is_unformed(module):
            yield module


@contextmanager
def without_early_warnings(prog: Program) -> Iterator[None]:
    """Drop drgn's warnings of modules that are being loaded, which the body causes."""
    warnings: list[str] = []
    try:
        with collected_warnings() as warnings:
            yield
    finally:
        for line in warnings:
            if not line.startswith(_IGNORED) or _lacks_one(prog):
                logging.getLogger("drgn").warning("%s", line)


def _lacks_one(prog: Program) -> bool:
    """Return whether drgn does not know a module that is loaded."""
    try:
        for module in loaded_modules(prog):
            prog.linux_kernel_loadable_module(module)
    except Exception:  # drgn may raise any for a damaged list.
        return True
    return False


def _is_unformed(module: Object) -> bool:
    state = module.state
    values = {value for name, value in state.type_.enumerators if name == _UNFORMED}
    return state.value_() in values
