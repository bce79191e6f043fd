# SPDX-License-Identifier: GPL-2.0-or-later
"""
A catalogue at scale: ``python -m benchmarks.catalogue CORES``.

CORES is a folder of core images. Copies of them, each with other bytes at its end, are
added in parts, so that the disk need not hold all. Each part costs the same, so a few
are enough (``--examined``): what they say is then stored again, under other hashes, for
as many images as a catalogue should have (``--images``). Rows that nobody died for
(``--rows``) make a larger one. Questions are put to both. Times are of CPU, with the
program's start.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.child import Child
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.row import Row
from kmemdump.catalogue.sources import find_file
from kmemdump.catalogue.store import Catalogue

_PART = 100
_ROWS = 50_000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_DAYS = 330
_FUNCTIONS = 1500


def _run(*words: str) -> tuple[str, float, int]:
    """Run a part of the catalogue; return its output, CPU seconds, and most memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "kmemdump", "catalogue", *words],
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, spent, after.ru_maxrss


def _examine(cores: list[Path]) -> list[tuple[Row, bytes]]:
    """Return what each core image says; all must say something."""
    examined = []
    with Child(Limits(), "collector") as child:
        for core in cores:
            row, page = child.examine(find_file(str(core))) or (None, None)
            if row is None or page is None:
                raise SystemExit(f"{core}: has no report")
            examined.append((row, page))
    return examined


def _add_images(cores: list[Path], count: int, folder: Path) -> None:
    place = folder / "images"
    for start in range(0, count, _PART):
        part = folder / "part"
        part.mkdir()
        end = min(start + _PART, count)
        for number in range(start, end):
            copy = part / f"{number}.core"
            shutil.copy(cores[number % len(cores)], copy)
            with copy.open("ab") as file:
                file.write(b"%016d" % number)
        said, spent, memory = _run("add", str(part), "--to", str(place), "--json")
        shutil.rmtree(part)
        added = json.loads(said)["added"]
        print(
            f"{end} of {count} images: {added} of {end - start} added, "
            f"{spent / (end - start):.3f} s each, {memory >> 10} MiB",
            flush=True,
        )
        if added != end - start:
            raise SystemExit("not all were added")


def _store_images(
    examined: list[tuple[Row, bytes]], numbers: range, folder: Path
) -> None:
    """Store what core images say, as adding does, without examining each."""
    catalogue = Catalogue(Place(str(folder / "images")))
    random.seed(2)
    begun = time.process_time()
    rows = []
    for number in numbers:
        row, page = examined[number % len(examined)]
        content = hashlib.sha256(b"image %d" % number).hexdigest()
        catalogue.add_page(content, page)
        died = _START + timedelta(seconds=random.randrange(_DAYS * 86_400))
        rows.append(replace(row, content=content, died=died, added=died))
        if len(rows) == _PART or number == numbers[-1]:
            catalogue.add(rows)
            rows = []
    catalogue.merge()
    if numbers:
        spent = (time.process_time() - begun) / len(numbers)
        print(f"{len(numbers)} more stored: {spent * 1000:.1f} ms each", flush=True)


def _rows(numbers: range) -> Iterator[Row]:
    for number in numbers:
        name = f"func_{min(int(random.paretovariate(0.7)), _FUNCTIONS)}"
        died = _START + timedelta(seconds=random.randrange(_DAYS * 86_400))
        yield Row(
            content=hashlib.sha256(b"%d" % number).hexdigest(),
            source=f"/srv/cores/host{number % 5000}/{number}.core",
            added=died,
            added_by="collector",
            form="core image",
            size=5_000_000 + number % 1000,
            modified=died,
            died=died,
            kind="oops",
            signature=f"oops in {name} < caller_of_{name}",
            signature_version=1,
            signature_origin="stacks",
            function=name,
            sentence=f"The kernel used a bad pointer in {name}.",
            frames=(name, f"caller_of_{name}", "do_syscall_64"),
            release=f"6.{random.choice((1, 6, 12))}.{random.randrange(40)}-amd64",
            architecture="x86_64",
            machine=f"vm{random.randrange(20_000)}",
            death_id=f"{number:032x}",
            complete=True,
        )


def _ask_rows(count: int, folder: Path) -> None:
    place = folder / "rows"
    catalogue = Catalogue(Place(str(place)))
    random.seed(1)
    for start in range(0, count, _ROWS):
        catalogue.add(list(_rows(range(start, min(start + _ROWS, count)))))
    _ask(count, place, folder / "pages")


def _ask(count: int, place: Path, pages: Path) -> None:
    size = sum(Catalogue(Place(str(place))).files().values())
    print(f"{count} rows: {size / count:.0f} bytes each")
    for words in (
        ("compact",),
        ("list",),
        ("new", "--since", "2026-11-20"),
        ("page", "-o", str(pages)),
    ):
        _, spent, memory = _run(*words, "--from", str(place))
        print(f"{words[0]}: {spent:.2f} s, at most {memory >> 10} MiB", flush=True)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cores", type=Path)
    parser.add_argument("--examined", type=int, default=1000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    cores = sorted(given.cores.glob("*.core"))
    if not cores:
        raise SystemExit(f"{given.cores}: no *.core in it")
    examined = _examine(cores)
    with tempfile.TemporaryDirectory(prefix="kmemdump-") as folder:
        _add_images(cores, given.examined, Path(folder))
        _store_images(examined, range(given.examined, given.images), Path(folder))
        _ask(given.images, Path(folder) / "images", Path(folder) / "image-pages")
        _ask_rows(given.rows, Path(folder))  # Last: it takes the most memory.


if __name__ == "__main__":
    _main()
