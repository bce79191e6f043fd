# SPDX-License-Identifier: GPL-2.0-or-later
"""
Deaths of known bugs, grouped by their signatures.

A program: ``make signatures``. Machines of several kernels and architectures run into
the bugs of `rigs.bugs`, each on a CPU, in a task and at a moment of chance. The
signature of each death comes from the watch's event, from the core image, from what the
console said and, of the first death of each bug on each kernel, from the core image
with the kernel's debug file. It prints the groups, and ends with status 1 if a group
has two bugs, or a bug has two groups. A mere console may know less: what it says must
not be another bug's, and is listed.

Deaths are kept in ``build/signatures`` until all is right, so that a run goes on where
the last one ended, and ``ARGS=--again`` reads them with another version. A folder that
is named with ``--folder`` stays.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from kmemdump.errors import KmemdumpError
from rigs.bug_deaths import ARCHITECTURES, BY_NAME, BugDeaths, Death, Job
from rigs.bugs import BUGS

_DEATHS = 300
_KERNELS = ("6.12", "newest")
_FOLDER = Path(__file__).parents[1] / "build/signatures"

_CONSOLE = "console"

Signatures = Mapping[str, str | None]
"""Of a death, by what they are made of."""


def jobs(
    deaths: int, kernels: list[str], names: list[str], only: list[str], seed: int
) -> Iterator[Job]:
    """Yield bugs and machines, so that each bug meets each machine."""
    machines = [(k, ARCHITECTURES[name]) for k in kernels for name in names]
    number = 0
    turn = 0
    while number < deaths:
        for i, bug in enumerate(BUGS):
            kernel, architecture = machines[(i + turn) % len(machines)]
            if bug.name not in (only or [bug.name]):
                continue
            if architecture not in bug.architectures:
                continue
            if number < deaths:
                yield Job(number, bug.name, kernel, architecture.name, seed)
            number += 1
        turn += 1


def problems(found: Mapping[Job, Signatures]) -> Iterator[str]:
    """Print the groups, and yield what is wrong with them."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    of_bug: dict[str, set[str]] = defaultdict(set)
    for job, signatures in found.items():
        sure = {text for source, text in signatures.items() if source != _CONSOLE}
        for text in filter(None, sure):
            groups[text][job.bug] += 1
            of_bug[job.bug].add(text)
        words = signatures.get("core image")
        function = BY_NAME[job.bug].function
        if words is None:
            yield f"{job.name}: no signature of the core image"
        elif function is not None and not words.endswith(f" in {function}"):
            yield f"{job.name}: {words!r}, expected {function}"
    print(f"\n{len(found)} deaths, {len(groups)} groups:")
    _show(groups)
    yield from _mixed(groups)
    for name, texts in of_bug.items():
        if len(texts) > 1:
            yield f"split: {name} has {', '.join(map(repr, sorted(texts)))}"
    others: dict[str, Counter[str]] = defaultdict(Counter)
    for job, signatures in found.items():
        console = signatures.get(_CONSOLE)
        if console is not None and console not in of_bug[job.bug]:
            others[console][job.bug] += 1
    print("\nOther signatures of consoles:" if others else "")
    _show(others)
    # A kind alone is no group.
    named = {text: bugs for text, bugs in others.items() if re.search(" in |: ", text)}
    yield from _mixed({text: bugs | groups[text] for text, bugs in named.items()})


def _show(groups: Mapping[str, Counter[str]]) -> None:
    for signature, bugs in sorted(groups.items(), key=lambda it: -it[1].total()):
        print(f"{bugs.total():5}  {signature:<60} {', '.join(bugs)}")


def _mixed(groups: Mapping[str, Counter[str]]) -> Iterator[str]:
    for signature, bugs in groups.items():
        if len(bugs) > 1:
            yield f"mixed: {signature!r} has {', '.join(bugs)}"


def _make(
    deaths: BugDeaths, wanted: Iterable[Job], failures: list[str], *, vmlinux: bool
) -> None:
    """
    Make the deaths that are missing.

    :param vmlinux: Whether the first of each bug and kernel is read with debug files,
        while the next ones are made.
    """
    made, known = deaths.made(), deaths.with_vmlinux()
    met: set[tuple[str, str, str]] = set()
    with ThreadPoolExecutor(1) as reader:
        reading: list[Future[None]] = []
        for job in wanted:
            death = made.get(job)
            start = time.monotonic()
            try:
                if death is None:
                    death = deaths.make(job)
                    seconds = time.monotonic() - start
                    how = f"{death.about:<40} {death.event}"
                    print(f"{seconds:5.0f} s  {job.name:<36} {how}", flush=True)
            except (KmemdumpError, AssertionError) as error:
                failures.append(f"{type(error).__name__}: {error}")
                print(failures[-1], flush=True)
                continue
            key = (job.bug, job.kernel, job.architecture)
            if vmlinux and key not in met and job.name not in known:
                reading.append(reader.submit(deaths.read_with_vmlinux, death))
            met.add(key)
        for future in reading:
            try:
                future.result()
            except AssertionError as error:
                failures.append(str(error))


def _signatures(
    deaths: BugDeaths, made: Iterable[Death], *, again: bool
) -> dict[Job, Signatures]:
    """Return all signatures of deaths; without what a watch said in another run."""
    signatures, with_vmlinux = deaths.signatures(), deaths.with_vmlinux()
    found: dict[Job, Signatures] = {}
    for death in made:
        sources = {
            "event": None if again else death.event,
            "core image": signatures.get(str(death.core)),
            _CONSOLE: signatures.get(str(death.console)),
            "vmlinux": with_vmlinux.get(death.job.name),
        }
        found[death.job] = sources
    return found


def _cpu() -> float:
    """Return CPU seconds of this process and of those that ended under it."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(it.ru_utime + it.ru_stime for it in used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deaths", type=int, default=_DEATHS)
    parser.add_argument("--kernel", action="append", help="only this kernel")
    parser.add_argument("--arch", action="append", choices=[*ARCHITECTURES])
    parser.add_argument("--only", action="append", help="only this bug")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=_FOLDER)
    parser.add_argument(
        "--again", action="store_true", help="read all deaths again, and make none"
    )
    parser.add_argument(
        "--no-vmlinux", action="store_true", help="no reports with debug files"
    )
    given = parser.parse_args()
    deaths = BugDeaths(given.folder)
    before = set(deaths.made())
    if given.again:
        deaths.forget()
    wanted = jobs(
        given.deaths,
        given.kernel or [*_KERNELS],
        given.arch or [*ARCHITECTURES],
        given.only or [],
        given.seed,
    )
    chosen = [job for job in wanted if not given.again or job in before]
    failures: list[str] = []
    _make(deaths, chosen, failures, vmlinux=not given.no_vmlinux)
    status = deaths.end()
    deaths.read()
    made = [death for job, death in deaths.made().items() if job in chosen]
    wrong = [*failures, *problems(_signatures(deaths, made, again=given.again))]
    new = sum(death.job not in before for death in made)
    print(f"{new} made, {_cpu():.0f} s of CPU", *wrong, sep="\n")
    if not wrong and given.folder == _FOLDER:
        shutil.rmtree(given.folder)
    return 1 if wrong or status else 0


if __name__ == "__main__":
    sys.exit(main())
