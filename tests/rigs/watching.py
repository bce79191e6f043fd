# SPDX-License-Identifier: GPL-2.0-or-later
"""A ``kmemdump watch`` that runs beside a test."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rigs.programs import KMEMDUMP

__all__ = ["AREAS", "PATIENCE", "Watch", "seconds_of"]

PATIENCE = 120
"""Seconds; the host may be busy."""
AREAS = ("coreinfo", "kmsg", "panic", "sched", "stacks", "tasks", "symbols")
"""Every question is asked by other tests; these take no long time to mark."""


class Watch:
    """A ``kmemdump watch --json`` that runs."""

    def __init__(
        self,
        folder: Path,
        *sockets: Path,
        arguments: Sequence[str] = (),
        until_dead: bool = True,
    ) -> None:
        self.folder = folder
        areas = [word for name in AREAS for word in ("--area", name)]
        command = [*KMEMDUMP, "watch", "--json", *map(str, sockets)]
        if until_dead:
            command.append("--until-dead")
        self.process = subprocess.Popen(
            [*command, "-o", str(folder), *areas, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        """What it reported, without signs of life."""
        self.events: list[dict[str, object]] = []
        """The same, as fields."""
        self.signs: list[int] = []
        """Samples without an alarm, in each sign of life."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                record = json.loads(line)
            except ValueError:  # A traceback, maybe.
                self.lines.append(line.rstrip("\n"))
                continue
            if record["event"] == "alive":
                self.signs.append(record["samples"])
            elif record["event"] != "refreshed":
                self.events.append(record)
                self.lines.append(f"{record['vm']}: {record['text']}")

    def wait_for(
        self, pattern: str, *, after: int = 0, patience: float = PATIENCE
    ) -> re.Match[str]:
        """Return the match of the first line with *pattern*, of those after some."""
        deadline = time.monotonic() + patience
        while True:
            ended = not self._reader.is_alive()  # Its last lines are there then.
            for line in self.lines[after:]:
                match = re.search(pattern, line)
                if match:
                    return match
            assert not ended, f"ended without {pattern!r}: {self.lines}"
            assert time.monotonic() < deadline, f"no {pattern!r}: {self.lines}"
            time.sleep(0.1)

    def wait_without_alarm(self, samples: int, *, said: str = "") -> None:
        """
        Wait until the hang detector took some more samples, and found nothing.

        :param said: Regular expression for what the watch may report meanwhile.
        """
        lines, start = len(self.lines), len(self.signs)
        before = self.signs[-1] if self.signs else 0
        deadline = time.monotonic() + PATIENCE
        while not (new := self.signs[start:]) or new[-1] - before < samples:
            self._check_silence(lines, said)
            assert self._reader.is_alive()
            assert time.monotonic() < deadline, self.signs
            if new and new[0] < before:  # The last alarm started the count again.
                before = 0
            time.sleep(0.1)
        assert new == sorted(new)
        self._check_silence(lines, said)

    def _check_silence(self, lines: int, said: str) -> None:
        new = self.lines[lines:]
        assert all(said and re.search(said, line) for line in new), self.lines

    def end(self) -> int:
        """Return the exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join()
        return status

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def cores(self) -> list[Path]:
        return sorted(self.folder.glob("*.core"))


def seconds_of(watch: Watch, cause: str) -> float:
    """Return the seconds from the death to the first core image, as reported."""
    line = watch.wait_for(
        rf": {cause}.*; \S+\.core, [0-9.]+ MB, ([0-9.]+) s"
        r"(?:, completed after [0-9.]+ s)?$"
    )
    return float(line[1])
