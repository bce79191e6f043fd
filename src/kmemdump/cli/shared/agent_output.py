# SPDX-License-Identifier: GPL-2.0-or-later
"""Output of ``mark``, on a terminal or in the journal; where agents' files are."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kmemdump.agent.systemd import notify
from kmemdump.cli.shared.json_records import refresh_record
from kmemdump.cli.shared.messages import print_line, print_message
from kmemdump.errors import UnsupportedError
from kmemdump.text import format_duration

if TYPE_CHECKING:
    from kmemdump.marking.registration import RefreshResult

__all__ = ["AgentOutput", "JsonAgentOutput", "run_folder"]

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
    return _own(Path(tempfile.gettempdir()) / f"kmemdump-{os.geteuid()}")


def _own(folder: Path) -> Path:
    """Return a folder where others can make folders, too, unless it is theirs."""
    try:
        status = folder.lstat()
    except OSError:
        return folder  # It can be made.
    if status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode):
        return folder
    raise UnsupportedError(
        f"{folder}: is no folder of yours: another user made it\n"
        "set XDG_RUNTIME_DIR to a folder that only you can write to"
    )


class AgentOutput:
    """Prints for people, and notifies the service manager."""

    def __init__(self, environ: Mapping[str, str], target: str) -> None:
        self._environ = environ
        self._target = target
        self._journal = "JOURNAL_STREAM" in environ  # It reads priorities.
        self._known: set[str] = set()

    def print_line(self, line: str) -> None:
        """Print a line about the target."""
        self._print(f"{self._target}: {line}")

    def warn(self, line: str) -> None:
        """Print a problem."""
        if self._journal:
            line = "; ".join(line.splitlines())
            print_line(f"<{_WARNING}>{line}")
        else:
            print_message(line)

    def print_look(
        self, result: RefreshResult | Exception, interval: float | None = None
    ) -> None:
        """
        Print the result of a look at the kernel, and its new problems.

        :param interval: Seconds to the next look, if there is one.
        """
        from kmemdump.questions.question import explain

        again = "" if interval is None else f"; again after {format_duration(interval)}"
        if isinstance(result, Exception):
            problem = explain(result)
            line = f"not refreshed, what is registered stays: {problem}{again}"
            self.warn(line)
        else:
            line = f"{result.summary}{again}"
            self._print_result(result, line, interval)
        self.notify(STATUS=line)

    def notify(self, **state: str) -> None:
        """Notify the service manager, as with ``READY="1"``."""
        notify(self._environ, **state)

    def _print_result(
        self, result: RefreshResult, summary: str, _interval: float | None
    ) -> None:
        self._print(summary)
        for problem in result.problems:
            if problem not in self._known:
                self.warn(problem)
        self._known = set(result.problems)

    def _print(self, line: str) -> None:
        print_line(f"<{_INFO}>{line}" if self._journal else line)


class JsonAgentOutput(AgentOutput):
    """
    Prints for programs.

    :param lines: Whether to print one object per line, each with its time.
    """

    def __init__(self, environ: Mapping[str, str], target: str, *, lines: bool) -> None:
        super().__init__(environ, target)
        self._lines = lines

    def print_line(self, line: str) -> None:
        self.print_record(text=line)

    def warn(self, line: str) -> None:
        self.print_record(problem="; ".join(line.splitlines()))

    def print_record(self, **record: Any) -> None:
        """Print a record about the target."""
        record = {"version": 1, "target": self._target, **record}
        if self._lines:
            record["time"] = datetime.now(UTC).isoformat()
        click.echo(json.dumps(record, indent=None if self._lines else 2))

    def _print_result(
        self, result: RefreshResult, _summary: str, interval: float | None
    ) -> None:
        again = {} if interval is None else {"interval": interval}
        self.print_record(**refresh_record(result), **again)
