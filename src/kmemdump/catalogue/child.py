# SPDX-License-Identifier: GPL-2.0-or-later
"""The parent's end of a process that examines sources."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from kmemdump.bounds.attempts import End
from kmemdump.bounds.page import StatePage
from kmemdump.bounds.start import OWN_PYTHON
from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.content import Content
from kmemdump.catalogue.messages import LateError, receive, send, to_json
from kmemdump.catalogue.problem import Examined, problem_row
from kmemdump.catalogue.row import UNREAD, Row, check_content
from kmemdump.catalogue.sources import Source
from kmemdump.errors import FormatError

__all__ = ["Child"]

_SOURCES = 500
"""After so many, a process is replaced: hostile memory may have left traces in it."""
_WHO = "an examining process"
_REAPING = 10.0
"""Seconds that a process which was killed has to end."""
_STARTING = 30.0
"""Seconds more for the first source, in which the process starts."""


def _row(found: object, content: str | None) -> Row:
    """Return a row, which takes the place of none of another source."""
    if not isinstance(found, dict):
        raise FormatError(_WHO, "sends no row")
    row = Row.from_json(found, _WHO)
    if row.content != content and not row.content.startswith(UNREAD):
        raise FormatError(_WHO, f"sends a row of content {row.content}")
    return row


class Child:
    """
    A process that examines sources; it is replaced if it dies or hangs.

    :param limits: What one source may take; the CPU time is that of :attr:`seconds`.
    :param host: Name of the machine that adds the sources.
    :param identity: Files of private keys, for sources that are sealed.
    """

    def __init__(
        self, limits: Limits, host: str, identity: Sequence[Path] = ()
    ) -> None:
        self._limits = limits
        self._host = host
        self._identity = [os.path.abspath(path) for path in identity]
        self._process: subprocess.Popen[bytes] | None = None
        self._page: StatePage | None = None
        """What the process does."""
        self._count = 0

    def examine(
        self, source: Source, wanted: Callable[[str], bool] = lambda _: True
    ) -> Examined | None:
        """
        Return what a source says; None if its content is not wanted.

        A source that hangs, or at which the process dies, has a row that says so.

        :param wanted: Called with the content's hash.
        """
        seconds = self._limits.seconds
        fresh = self._process is None
        process = self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + seconds + (_STARTING if fresh else 0)
        content: str | None = None
        try:
            send(
                process.stdin.fileno(),
                {
                    "source": to_json(source),
                    "host": self._host,
                    "identity": self._identity,
                },
            )
            while (found := receive(process.stdout.fileno(), deadline)) is not None:
                message, data = found
                if "row" in message:
                    row = _row(message["row"], content)
                    return row, data if message.get("page") else None
                content = str(message.get("content"))
                check_content(content, _WHO)
                go = wanted(content)
                send(process.stdin.fileno(), {"go": go})
                if not go:
                    return None
            problem = self._end()
        except LateError:
            self.close()
            problem = f"not examined within {seconds:g} s (--max-time)"
        except OSError as error:
            problem = f"{self._end()}: {error}"
        except FormatError as error:
            self.close()
            problem = f"the process that examined it: {error}"
        known = Content(source.name, content, source.size or 0) if content else None
        return problem_row(source, self._host, problem, known), None

    def _start(self) -> subprocess.Popen[bytes]:
        if self._count >= _SOURCES:
            self.close()
        if self._process is None:
            limits = self._limits
            self._page = page = StatePage()
            self._process = subprocess.Popen(
                [
                    *OWN_PYTHON,
                    "-m",
                    "kmemdump.catalogue.examiner",
                    str(page.fd),
                    str(limits.memory),
                    str(int(limits.seconds)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[page.fd],
            )
            page.detach()
            self._count = 0
        self._count += 1
        return self._process

    def _end(self) -> str:
        """End the process; return how it ended by itself."""
        process, page = self._process, self._page
        assert process is not None
        assert page is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REAPING)
        status, step = process.poll(), page.step
        self.close()
        how = "it hung" if status is None else str(End(status, step))
        return f"the process that examined it: {how}"

    def kill(self) -> None:
        """End the process, from another thread: what is examined has no result."""
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process now."""
        process, self._process = self._process, None
        page, self._page = self._page, None
        if page is not None:
            page.close()
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        # One that waits for a dead disk cannot be killed.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REAPING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
