# SPDX-License-Identifier: GPL-2.0-or-later
"""What an agent says, on a terminal or in the journal, and where its status is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from kmemdump.marker import Marked

__all__ = ["Teller", "run_folder"]

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


class Teller:
    """Tells people and the service manager; of problems only what is new."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        from kmemdump.agent.systemd import in_journal

        self._environ = environ
        self._journal = in_journal(environ)
        self._known: set[str] = set()

    def say(self, line: str) -> None:
        """Say something that is as it should be."""
        click.echo(f"<{_INFO}>{line}" if self._journal else line)

    def complain(self, line: str) -> None:
        """Say something that is not."""
        line = "; ".join(line.splitlines())
        if self._journal:
            click.echo(f"<{_WARNING}>{line}")
        else:
            click.echo(f"kmemdump: {line}", err=True)

    def tell(self, news: Marked | Exception) -> None:
        """Tell what came of a look at the kernel."""
        from kmemdump.agent.systemd import notify
        from kmemdump.questions import explain

        if isinstance(news, Exception):
            line = f"not refreshed, what is registered stays: {explain(news)}"
            self.complain(line)
            notify(self._environ, STATUS=line)
            return
        self.say(news.summary)
        problems = news.problems
        for problem in problems:
            if problem not in self._known:
                self.complain(problem)
        self._known = set(problems)
        notify(self._environ, STATUS=news.summary)

    def ready(self, news: Marked) -> None:
        """Say that the first look is done."""
        from kmemdump.agent.systemd import notify

        notify(self._environ, READY="1", STATUS=news.summary)

    def stopping(self) -> None:
        """Say that the end has begun."""
        from kmemdump.agent.systemd import notify

        notify(self._environ, STOPPING="1")
