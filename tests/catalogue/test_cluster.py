# SPDX-License-Identifier: GPL-2.0-or-later
"""A Dask cluster on the loopback, of which parts die."""

import contextlib
import gc
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.adding import add_sources
from kmemdump.catalogue.cluster import ClusterRunner
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.sources import find_sources
from kmemdump.catalogue.store import Catalogue
from kmemdump.errors import TargetError

pytestmark = pytest.mark.slow

HOST = "here"
PATIENCE = 120
SOURCES = 30
CORE = Path(__file__).parents[1] / "release/cores/first/log.core.xz"
"""Of a real kernel."""


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
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(Place(str(tmp_path / "place")))


def make_logs(folder):
    for number in range(SOURCES):
        (folder / f"{number}.log").write_text(
            f"[    0.000000] Linux version 6.1.{number} (a@b) #1 SMP\n"
            "[    9.000000] BUG: kernel NULL pointer dereference, address: 0\n"
            "[    9.000001] RIP: 0010:f+0x1/0x10\n"
        )


def make_core_images(folder):
    data = lzma.decompress(CORE.read_bytes())
    for number in range(SOURCES):
        (folder / f"{number}.core").write_bytes(data + b"%016d" % number)


def add(cluster, catalogue, folder, on_row=lambda _: None):
    runner = ClusterRunner(cluster.address, Limits(), HOST, patience=PATIENCE)
    sources = find_sources([str(folder)])
    return add_sources(catalogue, sources, runner, HOST, show=on_row)


@pytest.mark.filterwarnings("ignore")  # Those of the client that loses a scheduler.
@pytest.mark.parametrize(
    ("victim", "make"), [("worker", make_core_images), ("scheduler", make_logs)]
)
def test_what_dies_in_the_middle(victim, make, cluster, catalogue, tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    make(folder)
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

    done = add(cluster, catalogue, folder, on_row)
    assert (done.added, done.failed, len(rows)) == (SOURCES, 0, SOURCES)
    sql = "SELECT source, release FROM deaths ORDER BY 1"
    found = catalogue.ask(lambda it: it.rows(sql))
    assert [source for source, _ in found] == sorted(map(str, folder.iterdir()))
    assert {release[:2] for _, release in found} == {"6."}


def test_a_content_that_has_no_report_is_known_by_another_name(
    cluster, catalogue, tmp_path
):
    cluster.scheduler()
    cluster.worker()
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("1", "2"):
        (folder / name).write_text("text of no kernel\n" * 9)
    done = add(cluster, catalogue, folder)
    assert (done.added, done.failed, done.known) == (1, 1, 1)


class CountingRunner(ClusterRunner):
    """Counts what workers did not examine."""

    skipped = 0

    def _result(self, future, source):
        result = super()._result(future, source)
        self.skipped += result is None
        return result


def test_a_worker_examines_nothing_that_is_known(cluster, catalogue, tmp_path):
    cluster.scheduler()
    cluster.worker()
    folder, copies = tmp_path / "sources", tmp_path / "copies"
    folder.mkdir()
    make_logs(folder)
    assert add(cluster, catalogue, folder).added == SOURCES
    shutil.copytree(folder, copies)
    (copies / "new.log").write_text((folder / "1.log").read_text() + "\n")
    runner = CountingRunner(cluster.address, Limits(), HOST, patience=PATIENCE)
    cluster.worker()  # What starts later knows it, too.
    done = add_sources(catalogue, find_sources([str(copies)]), runner, HOST)
    assert (done.added, done.known, runner.skipped) == (1, SOURCES, SOURCES)
    # With --again, nothing is.
    runner = CountingRunner(cluster.address, Limits(), HOST, patience=PATIENCE)
    sources = find_sources([str(copies)])
    done = add_sources(catalogue, sources, runner, HOST, again=True)
    assert (done.added, done.known, runner.skipped) == (SOURCES + 1, 0, 0)


def test_no_scheduler():
    with pytest.raises(TargetError, match="no scheduler answers"):
        ClusterRunner("tcp://127.0.0.1:1", Limits(), HOST)
