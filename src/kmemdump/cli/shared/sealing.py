# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that say for whom a core image is sealed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from kmemdump.errors import UsageError

__all__ = ["seal_options", "show_cause_option"]

_SHOW_CAUSE = "show_cause"


def seal_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Add ``--seal``, as parameter *seal*: a :class:`~kmemdump.sealing.Seal` or ``None``.

    A verb that has :data:`show_cause_option` below it needs no parameter for that.
    """

    @functools.wraps(function)
    def with_seal(*arguments: Any, **given: Any) -> Any:
        recipients = given.pop("seal")
        show_cause = given.pop(_SHOW_CAUSE, False)
        if show_cause and not recipients:
            raise UsageError("--show-cause is for what is sealed: --seal RECIPIENT")
        seal = None
        if recipients:
            from kmemdump.sealing import make_seal
            from kmemdump.sealing.memory import keep_off_disk

            seal = make_seal(recipients, show_cause=show_cause)
            keep_off_disk()
        return function(*arguments, **given, seal=seal)

    return click.option(
        "--seal",
        multiple=True,
        metavar="RECIPIENT",
        help="Encrypt for this key, which alone opens it: age1…, 'ssh-ed25519 …', "
        "'ssh-rsa …', or a file of keys.",
    )(with_seal)


show_cause_option = click.option(
    "--show-cause",
    is_flag=True,
    help="Leave the cause of a death and its signature readable without a key.",
)
