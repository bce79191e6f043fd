# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages about wrong uses, in one style: click's become like ours."""

from __future__ import annotations

import click

__all__ = ["describe_number", "describe_wrong_use"]


def describe_wrong_use(error: click.ClickException) -> str:
    """Return what was wrong, and in a second line what shows how it is right."""
    text = error.format_message().strip().rstrip(".")
    text = text[:1].lower() + text[1:]
    if isinstance(error, click.BadParameter) and error.param is not None:
        expected = describe_number(error.param)
        if expected and expected not in text:
            text += f", expected {expected}"
    context = getattr(error, "ctx", None)
    if context is not None:
        text += f"\n'{context.command_path} --help' explains it"
    return text


def describe_number(parameter: click.Parameter) -> str:
    """Return which numbers a parameter takes: "seconds, 1 to 86400"."""
    kind = parameter.type
    if not isinstance(kind, click.IntRange | click.FloatRange):
        return ""
    what = (parameter.metavar or "").lower()
    what = "a number" if len(what) < 2 else what  # N
    if kind.min is None:
        return what if kind.max is None else f"{what}, at most {kind.max}"
    if kind.max is None:
        return f"{what}, at least {kind.min}"
    return f"{what}, {kind.min} to {kind.max}"
