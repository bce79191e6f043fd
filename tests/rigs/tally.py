# SPDX-License-Identifier: GPL-2.0-or-later
"""
How many inputs each parser has had, over all runs: ``tests/tally.json``.

The fuzzers add to it after each piece of work, so that runs of many days add up and an
interrupted one loses nothing. Commit it with what the runs found.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["TALLY", "Count", "add_count", "read_tally"]

TALLY = Path(os.environ.get("KMEMDUMP_TALLY", Path(__file__).parents[1] / "tally.json"))


@dataclass
class Count:
    """What inputs of one kind have cost and found."""

    guided: int = 0
    """Inputs that a fuzzer made of those that ran new code."""
    mutated: int = 0
    """Inputs that were made of the corpus, without a look at the code."""
    failures: int = 0
    """Failures that were found, and mended since."""
    cpu_seconds: float = 0.0
    longest: float = 0.0
    """CPU seconds of the input that took the longest."""
    memory: int = 0
    """MiB of the process, at most."""
    last: str = ""
    """Day of the last run."""

    @property
    def inputs(self) -> int:
        """All inputs."""
        return self.guided + self.mutated

    def add(self, other: "Count") -> None:
        """Add another run."""
        for name in ("guided", "mutated", "failures", "cpu_seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("longest", "memory", "last"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        self.cpu_seconds = round(self.cpu_seconds, 1)
        self.longest = round(self.longest, 3)


def read_tally(path: Path = TALLY) -> dict[str, Count]:
    """Return the counts of all runs, by the parser's name."""
    return _parse(path.read_text()) if path.exists() else {}


def add_count(name: str, count: Count, path: Path = TALLY) -> Count:
    """Add a run to the tally, and return the sum; another process may do the same."""
    count.last = count.last or f"{datetime.now(UTC):%Y-%m-%d}"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        tally = _parse(file.read())
        total = tally.setdefault(name, Count())
        total.add(count)
        new = path.with_name(f"{path.name}.new")
        new.write_text(_format(tally))
        file.seek(0)
        file.truncate()
        file.write(new.read_text())
        new.unlink()
    return total


def _parse(text: str) -> dict[str, Count]:
    known = {item.name for item in fields(Count)}
    found = json.loads(text or "{}")
    return {
        name: Count(**{key: value for key, value in row.items() if key in known})
        for name, row in found.items()
    }


def _format(tally: Mapping[str, Count]) -> str:
    rows = [
        f" {json.dumps(name)}: {json.dumps(asdict(count))}"
        for name, count in sorted(tally.items())
    ]
    return "{\n" + ",\n".join(rows) + "\n}\n"
