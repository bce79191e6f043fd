# SPDX-License-Identifier: GPL-2.0-or-later
"""Output of ``watch``: lines, JSON, a table on a terminal, the service manager's."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Self

import click
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kmemdump.agent.systemd import notify, watchdog_interval
from kmemdump.text import plain_console, printable
from kmemdump.watch.events import Event, EventName

__all__ = ["WatchOutput"]

_MAX_ROWS = 30
"""VMs in the table; more make it useless."""


class WatchOutput:
    """
    Prints lines, and on a terminal below them the status of each VM.

    :param environ: Says whether there is a service manager.
    """

    def __init__(
        self, environ: Mapping[str, str], *, verbose: bool, as_json: bool
    ) -> None:
        self._environ = environ
        self._verbose = verbose
        self._as_json = as_json
        self._states: dict[str, str] = {}
        self._ready = False
        self._watchdog = watchdog_interval(environ)
        self._next_sign = 0.0
        console = plain_console(soft_wrap=True)
        self._live = None
        if console.is_terminal and not as_json:
            self._live = Live(self._table(), console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        notify(self._environ, STOPPING="1")
        if self._live is not None:
            self._live.stop()

    def show(self, event: Event) -> None:
        """Show what happened."""
        if event.event is EventName.GONE:
            self._states.pop(event.vm, None)
        elif event.event is not EventName.ALIVE and event.vm:
            self._states[event.vm] = printable(event.text)
        self._refresh()
        if event.event.passing and not self._verbose:
            # Programs want the signs of life, too.
            if self._as_json and event.event is not EventName.STATUS:
                click.echo(json.dumps(event.record()))
        elif self._as_json:
            click.echo(json.dumps(event.record()))
        elif event.event is not EventName.ALIVE:
            self._print(printable(f"{event.vm or 'kmemdump'}: {event.text}"))

    def tick(self) -> None:
        """Tell the service manager that the watch works."""
        now = time.monotonic()
        if now < self._next_sign:
            return
        self._next_sign = now + self._watchdog
        many = len(self._states)
        status = f"{many} VM{'' if many == 1 else 's'}"
        if self._ready:
            notify(self._environ, WATCHDOG="1", STATUS=status)
        else:
            self._ready = True
            notify(self._environ, READY="1", STATUS=status)

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(Text(line))
        else:
            click.echo(line)

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, state in [*self._states.items()][:_MAX_ROWS]:
            table.add_row(
                Text(printable(name), style="bold"), Text(state, overflow="ellipsis")
            )
        if len(self._states) > _MAX_ROWS:
            table.add_row(Text("…"), Text(f"{len(self._states) - _MAX_ROWS} more"))
        return table
