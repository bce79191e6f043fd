# SPDX-License-Identifier: GPL-2.0-or-later
"""The options that say which VMs of a host are meant, and what is done with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kmemdump.cli.shared.options import (
    grouped,
    no_vmlinux_option,
    selection_options,
    vmlinux_option,
)
from kmemdump.cli.shared.retention import retention_options
from kmemdump.cli.shared.sizes import memory_of_option

if TYPE_CHECKING:
    from kmemdump.watch.sources.all import Sources

__all__ = ["SourceOptions", "parse_sources", "source_options", "watching_options"]


class SourceOptions(NamedTuple):
    """Which VMs, as typed."""

    specs: tuple[str, ...]
    libvirt: tuple[str, ...]
    names: tuple[str, ...]
    metadata: tuple[str, ...]


def source_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument ``VM…`` and the options that find VMs, as *where*."""
    return grouped(
        function,
        "where",
        SourceOptions,
        click.argument(
            "specs",
            nargs=-1,
            metavar="[QMP_SOCKET|DIR|PATTERN]…",
        ),
        click.option(
            "--libvirt",
            multiple=True,
            is_flag=False,
            flag_value="",
            metavar="[=URI]",
            help="All running domains of libvirt, those that start later too. URI may "
            "have a pattern for the daemons' sockets.",
        ),
        click.option(
            "--name",
            "names",
            multiple=True,
            metavar="PATTERN",
            help="Only VMs whose name matches, for example 'web*'.",
        ),
        click.option(
            "--metadata",
            multiple=True,
            metavar="KEY=VALUE",
            help="Only libvirt domains with this metadata, for example 'title=web*'.",
        ),
    )


def watching_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what ``watch`` does and ``check`` rehearses: what to mark, and the room."""
    for option in (
        click.option(
            "--max-cpu",
            type=click.FloatRange(min=1),
            default=900.0,
            show_default=True,
            metavar="SECONDS",
            help="CPU time of which each question has a part, whenever it is asked.",
        ),
        click.option(
            "--max-memory",
            callback=memory_of_option,
            default="2GiB",
            show_default=True,
            metavar="SIZE",
            help="Memory for the process of each VM; 4 GiB more with --vmlinux.",
        ),
    ):
        function = option(function)
    chosen = selection_options(vmlinux_option(no_vmlinux_option(function)))
    return retention_options(chosen)


def parse_sources(where: SourceOptions) -> Sources:
    """
    Return what finds the VMs.

    :raises UsageError: If the options make no sense, or ask for no VM.
    :raises UnsupportedError: If libvirt's Python module is missing.
    """
    from kmemdump.watch.sources.all import find_sources

    return find_sources(where.specs, where.libvirt, where.names, where.metadata)
