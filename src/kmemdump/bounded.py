# SPDX-License-Identifier: GPL-2.0-or-later
"""Look at memory of strangers from Python, in a child with limits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from kmemdump.bounds.call import call_in_child
from kmemdump.bounds.steps import Limits
from kmemdump.errors import KmemdumpError
from kmemdump.opening import open_target
from kmemdump.targets.vm import VmTarget, let_run

__all__ = ["let_go", "run_bounded"]

_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)


def run_bounded(
    function: Callable[..., _Result],
    *arguments: object,
    limits: Limits | None = None,
) -> _Result:
    """
    Call a function in a child with limits, and return what it returns.

    In your own process, a question is stopped when it reads too much. Work that reads
    nothing, as drgn may do in C with types that a stranger made, and memory that it
    allocates, are limited only here. If the child is ended in a question, another one
    calls the function again, and that question has no answer: the others have theirs.

    Like :mod:`multiprocessing` with ``spawn``, this starts the program anew: guard what
    a script does with ``if __name__ == "__main__":``.

    :param function: A function of a module. It opens what it looks at, and returns what
        can be pickled: text, a :class:`Report`, but no :class:`Core`.
    :param arguments: For *function*; they can be pickled, too.
    :param limits: By default, those of the command line.
    :raises BudgetExceededError: If it exceeded a limit whatever was left out.
    :raises Exception: What *function* raises.
    """
    result: _Result = call_in_child(function, arguments, limits or Limits(), let_go)
    return result


def let_go(spec: str) -> None:
    """Let a VM run that was paused by a child that was ended."""
    try:
        with open_target(spec) as target:
            if isinstance(target, VmTarget):
                let_run(target)
    except (KmemdumpError, OSError) as error:
        _logger.warning("%s may stay paused: %s", spec, error)
