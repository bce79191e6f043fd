# SPDX-License-Identifier: GPL-2.0-or-later
"""
A verb that looks at foreign memory does so in a child with limits.

The fork comes before drgn is loaded: pages that a child writes to are copied, and
Python counts references in all that it looks at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from kmemdump.bounds.child import go_on_in_child
from kmemdump.bounds.steps import Limits
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.sizes import memory_of_option

__all__ = ["IN_CHILDREN", "bounded", "limit_options"]

IN_CHILDREN = "kmemdump.in_children"
"""What the program's own context has as its object where verbs go on in children."""
_KEY = "kmemdump.limits"


def _note(context: click.Context, option: click.Parameter, value: object) -> None:
    if value is not None:
        context.meta.setdefault(_KEY, {})[option.name] = value


def _note_size(
    context: click.Context, option: click.Parameter, value: str | None
) -> None:
    _note(context, option, memory_of_option(context, option, value))


def limit_options(
    function: Callable[..., Any], *, vmlinux: bool = False
) -> Callable[..., Any]:
    """
    Let a verb run in a child with limits, and add the options that raise them.

    :param function: The verb. Its parameter *target* or *source* is what it looks at.
    :param vmlinux: Whether it has ``--vmlinux``.
    """
    besides = "; 4G more with --vmlinux" if vmlinux else ""

    @functools.wraps(function)
    def in_child(*arguments: Any, **given: Any) -> Any:
        spec = given.get("target") or given.get("source")
        if spec is not None:
            bounded(spec)
        return function(*arguments, **given)

    found: Callable[..., Any] = in_child
    for option in (
        click.option(
            "--max-time",
            "seconds",
            type=click.FloatRange(min=1),
            metavar="SECONDS",
            expose_value=False,
            callback=_note,
            help="End work on the target after this time.  [default: 7200]",
        ),
        click.option(
            "--max-cpu",
            "cpu",
            type=click.FloatRange(min=1),
            metavar="SECONDS",
            expose_value=False,
            callback=_note,
            help="End work on the target after this CPU time; each question has a part "
            "of it.  [default: 900]",
        ),
        click.option(
            "--max-memory",
            "memory",
            metavar="SIZE",
            expose_value=False,
            callback=_note_size,
            help="End work on the target if it takes more memory, of which each "
            f"question has a part{besides}.  [default: 2G]",
        ),
    ):
        found = option(found)
    return found


def bounded(spec: str) -> None:
    """
    Go on in a child that has limits.

    :param spec: The target.
    :raises ChildEnded: In this process, when the child has ended.
    :raises KmemdumpError: In this process, if it exceeded a limit.
    """
    context = click.get_current_context()
    if context.find_root().obj == IN_CHILDREN:
        limits = Limits(**context.meta.get(_KEY, {}))
        go_on_in_child(limits, lambda _held: _let_go(spec), print_message)


def _let_go(spec: str) -> None:
    # Loaded late: the child is forked before drgn is loaded.
    from kmemdump.bounded import let_go

    let_go(spec)
