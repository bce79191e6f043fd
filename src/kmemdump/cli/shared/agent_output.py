# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent says, on a terminal or in the journal, and where its status is."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmemdump.cli.shared.json_records import marked_record
from kmemdump.cli.shared.messages import tell
from kmemdump.text import format_duration

if TYPE_CHECKING:
    from kmemdump.marking.registration import RefreshResult

__all__ = ["JsonTeller", "Teller", "held_table", "run_folder"]

_WARNING, _INFO = 4, 6  # syslog(3), as sd-daemon(3) wants them before a line.


def run_folder(environ: Mapping[str, str]) -> Path:
    """Return where agents leave their locks and status."""
    given = environ.get("RUNTIME_DIRECTORY")  # systemd's, for a unit that has one.
    if given:
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/kmemdump")
    own = environ.get("XDG_RUNTIME_DIR")
    if own:
        return Path(own) / "kmemdump"
    return Path(tempfile.gettempdir()) / f"kmemdump-{os.geteuid()}"


@contextmanager
def held_table(
    target: str, backend: str, address: int, environ: Mapping[str, str]
) -> Iterator[str]:
    """
    Hold a machine's table for the body of a ``with`` statement.

    :param target: Name of the machine.
    :param address: Of the table, in its physical memory.
    :return: Name of the table, for files.
    :raises UnsupportedError: If another process holds it.
    """
    from kmemdump.agent import table_lock

    who = re.sub(r"[^A-Za-z0-9.]+", "-", target.removeprefix("qmp:")).strip("-")[-80:]
    name = f"{who}-{backend}-{address:x}"
    with table_lock(run_folder(environ), name):
        yield name


class Teller:
    """Tells people and the service manager; of problems only what is new."""

    def __init__(self, environ: Mapping[str, str], target: str) -> None:
        from kmemdump.agent.systemd import in_journal

        self._environ = environ
        self._target = target
        self._journal = in_journal(environ)
        self._known: set[str] = set()

    def say(self, line: str) -> None:
        """Say something of the target that is as it should be."""
        self._print(f"{self._target}: {line}")

    def complain(self, line: str) -> None:
        """Say something that is not."""
        if self._journal:
            line = "; ".join(line.splitlines())
            click.echo(f"<{_WARNING}>{line}")
        else:
            tell(line)

    def tell(
        self, news: RefreshResult | Exception, interval: float | None = None
    ) -> None:
        """
        Tell what came of a look at the kernel.

        :param interval: Seconds to the next one, if there is one.
        """
        from kmemdump.agent.systemd import notify
        from kmemdump.questions.question import explain

        again = "" if interval is None else f"; again after {format_duration(interval)}"
        if isinstance(news, Exception):
            line = f"not refreshed, what is registered stays: {explain(news)}{again}"
            self.complain(line)
            notify(self._environ, STATUS=line)
            return
        summary = f"{news.summary}{again}"
        self._show(news, summary, interval)
        notify(self._environ, STATUS=summary)

    def ready(self) -> None:
        """Say that the first look is done."""
        from kmemdump.agent.systemd import notify

        notify(self._environ, READY="1")

    def stopping(self) -> None:
        """Say that the end has begun."""
        from kmemdump.agent.systemd import notify

        notify(self._environ, STOPPING="1")

    def _show(self, news: RefreshResult, summary: str, _interval: float | None) -> None:
        self._print(summary)
        problems = news.problems
        for problem in problems:
            if problem not in self._known:
                self.complain(problem)
        self._known = set(problems)

    def _print(self, line: str) -> None:
        click.echo(f"<{_INFO}>{line}" if self._journal else line)


class JsonTeller(Teller):
    """
    Tells programs.

    :param lines: Whether to print an object a line, each with its time.
    """

    def __init__(self, environ: Mapping[str, str], target: str, *, lines: bool) -> None:
        super().__init__(environ, target)
        self._lines = lines

    def say(self, line: str) -> None:
        self._put({"text": line})

    def complain(self, line: str) -> None:
        self._put({"problem": "; ".join(line.splitlines())})

    def _show(self, news: RefreshResult, _summary: str, interval: float | None) -> None:
        again = {} if interval is None else {"interval": interval}
        self._put({**marked_record(news), **again})

    def _put(self, record: dict[str, Any]) -> None:
        record = {"version": 1, "target": self._target, **record}
        if self._lines:
            record["time"] = datetime.now(UTC).isoformat()
        click.echo(json.dumps(record, indent=None if self._lines else 2))
