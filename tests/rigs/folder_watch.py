# SPDX-License-Identifier: GPL-2.0-or-later
"""One ``kmemdump watch`` of a folder of sockets, for many VMs that come and go."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmemdump.lab import Machine
from rigs.programs import KMEMDUMP

__all__ = ["Event", "FolderWatch"]

Event = dict[str, Any]
"""A line of ``watch --json``."""


class FolderWatch:
    """
    Watches the VMs whose sockets are in a folder.

    :param folder: Of the sockets and core images, made if it is missing.
    :param arguments: More of ``watch``.
    """

    def __init__(
        self, folder: Path, environ: dict[str, str], arguments: Sequence[str]
    ) -> None:
        self.folder = folder
        self.sockets, self.cores = folder / "vms", folder / "cores"
        self.sockets.mkdir(parents=True, exist_ok=True)
        self.environ = environ | {"RUNTIME_DIRECTORY": str(folder)}
        self._events: dict[str, list[Event]] = defaultdict(list)
        command = [*KMEMDUMP, "watch", "--json", f"{self.sockets}/"]
        self._command = [*command, "-o", str(self.cores), *arguments]
        self.start()

    def start(self) -> None:
        """Start the watch, which does not run."""
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, env=self.environ
        )
        threading.Thread(target=self._read, args=[self.process], daemon=True).start()

    def kill(self) -> None:
        """Kill the supervisor alone."""
        self.process.kill()
        self.process.wait()

    def add(self, name: str, machine: Machine) -> None:
        """Let a machine's socket appear, by a name; the one before is replaced."""
        new = self.sockets / f"{name}.new"
        new.symlink_to(machine.qmp)
        new.rename(self.sockets / f"{name}.qmp")

    def remove(self, name: str) -> None:
        """Let a socket disappear."""
        (self.sockets / f"{name}.qmp").unlink(missing_ok=True)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] not in ("alive", "refreshed", "status"):
                self._events[event["vm"]].append(event)

    def events(self, vm: str) -> list[Event]:
        """Return the events of a VM."""
        return self._events[vm]

    def worker(self, vm: str) -> int | None:
        """Return the process that watches a VM."""
        done = subprocess.run(
            [*KMEMDUMP, "status", "--json"], capture_output=True, env=self.environ
        )
        for watch in json.loads(done.stdout or b'{"watches": []}')["watches"]:
            for item in watch["vms"]:
                if item["vm"] == vm and item["state"] == "watched":
                    return int(item["pid"])
        return None

    def memory(self) -> int:
        """Return the memory of all its processes in bytes, shared parts once."""
        return sum(_pss(pid) for pid in _descendants(self.process.pid))

    def end(self) -> int:
        """Let it end; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            found += _descendants(int(child))
    return found


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0
