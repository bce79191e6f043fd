# SPDX-License-Identifier: GPL-2.0-or-later
"""A Dask cluster on the loopback, of which parts die."""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.adding import add_sources
from kmemdump.catalogue.cluster import ClusterRunner
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.sources import find_sources
from kmemdump.catalogue.store import Catalogue
from kmemdump.errors import TargetError

HOST = "here"
PATIENCE = 120
SOURCES = 30


class Cluster:
    """Processes of a scheduler and its workers."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        self.address = ""

    def start(self, *words: str, name: str) -> subprocess.Popen:
        log = self.folder / f"{name}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
                stderr=output,
                stdout=output,
                cwd=self.folder,
            )
        self.processes.append(process)
        return process

    def scheduler(self, port: int = 0) -> subprocess.Popen:
        port_words = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        name = f"scheduler{len(self.processes)}"
        process = self.start("scheduler", *port_words, name=name)
        log = self.folder / f"{name}.log"
        found = self.wait(
            lambda: re.search(r"Scheduler at: +(tcp://\S+)", log.read_text())
        )
        self.address = found[1]
        return process

    def worker(self) -> subprocess.Popen:
        words = (self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
        return self.start("worker", *words, name=f"worker{len(self.processes)}")

    def wait(self, found):
        deadline = time.monotonic() + PATIENCE
        while not (value := found()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return value


@pytest.fixture
def cluster(tmp_path):
    found = Cluster(tmp_path)
    yield found
    for process in found.processes:
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGKILL)
        process.wait()
    gc.collect()  # Here, where a warning of a socket that nobody closed is ignored.


@pytest.fixture
def logs(tmp_path) -> str:
    folder = tmp_path / "logs"
    folder.mkdir()
    for number in range(SOURCES):
        (folder / f"{number}.log").write_text(f"[    1.0] Linux version 6.1.{number}\n")
    return str(folder)


def add(cluster, logs, tmp_path, on_row) -> list[str]:
    catalogue = Catalogue(Place(str(tmp_path / "place")))
    runner = ClusterRunner(cluster.address, Limits(), HOST, patience=PATIENCE)
    done = add_sources(catalogue, find_sources([logs]), runner, HOST, show=on_row)
    assert done.added == SOURCES
    sql = "SELECT source FROM deaths ORDER BY 1"
    return [source for (source,) in catalogue.ask(lambda it: it.rows(sql))]


@pytest.mark.filterwarnings("ignore")  # Those of the client that loses a scheduler.
@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_what_dies_in_the_middle(victim, cluster, logs, tmp_path):
    scheduler = cluster.scheduler()
    workers = [cluster.worker(), cluster.worker()]
    rows = []

    def on_row(row):
        rows.append(row)
        if len(rows) != SOURCES // 3:
            return
        if victim == "worker":
            os.kill(workers[0].pid, signal.SIGKILL)
        else:
            port = int(cluster.address.rpartition(":")[2])
            for process in (scheduler, *workers):
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            cluster.scheduler(port)
            cluster.worker()

    found = add(cluster, logs, tmp_path, on_row)
    assert found == sorted(f"{logs}/{number}.log" for number in range(SOURCES))
    assert len(rows) == SOURCES


def test_no_scheduler():
    with pytest.raises(TargetError, match="no scheduler answers"):
        ClusterRunner("tcp://127.0.0.1:1", Limits(), HOST)
