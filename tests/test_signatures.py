# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``make signatures`` finds wrong, and that it goes on where it ended."""

import json
from dataclasses import asdict

import pytest

import signatures
from rigs.bug_deaths import BugDeaths, Job


def death(number, bug, text, **others):
    job = Job(number, bug, "6.12", "x86_64", 1)
    return job, {"event": text, "core image": text, **others}


NULL, WORK = (
    "null dereference in buggy_store_null",
    "null dereference in buggy_do_work",
)


@pytest.mark.parametrize(
    ("deaths", "wrong"),
    [
        ([("null-task", NULL), ("null-task", NULL), ("null-work", WORK)], []),
        # Two bugs in a group.
        ([("sysrq", "panic: x"), ("nmi", "panic: x")], ["mixed: 'panic: x' has"]),
        # A bug in two groups.
        ([("sysrq", "panic: x"), ("sysrq", "panic: y")], ["split: sysrq has"]),
        # Another function than the one with the bug.
        ([("null-work", NULL)], ["expected buggy_do_work"]),
        ([("sysrq", None)], ["no signature of the core image"]),
    ],
)
def test_problems(deaths, wrong):
    found = dict(death(number, *it) for number, it in enumerate(deaths))
    said = list(signatures.problems(found))
    assert len(said) == len(wrong)
    assert all(words in line for words, line in zip(wrong, said, strict=True))


@pytest.mark.parametrize(
    ("console", "wrong"),
    [
        (NULL, []),
        (None, []),
        ("null dereference", []),
        ("null dereference in buggy_caller", []),
        (WORK, [f"mixed: {WORK!r} has null-task, null-work"]),
    ],
)
def test_a_console_that_knows_less(console, wrong):
    found = dict(
        [death(0, "null-task", NULL, console=console), death(1, "null-work", WORK)]
    )
    assert list(signatures.problems(found)) == wrong


def test_a_vmlinux_that_says_otherwise():
    found = dict([death(0, "null-task", NULL, vmlinux=WORK)])
    assert [it[:5] for it in signatures.problems(found)] == ["split"]


def test_jobs():
    """Each bug meets each machine that can have it; more deaths repeat none."""
    jobs = list(signatures.jobs(300, ["a", "b"], ["x86_64", "aarch64"], [], 1))
    assert [job.number for job in jobs] == list(range(300))
    met = {(job.bug, job.kernel, job.architecture) for job in jobs}
    only = {"divide", "nmi"}  # Of x86_64.
    both = {(b, k, a) for b, k, a in met if b not in only}
    assert len(both) == 4 * (len({bug for bug, _, _ in met}) - 2)
    first = list(signatures.jobs(29, ["a", "b"], ["x86_64", "aarch64"], [], 1))
    assert first == jobs[:29]


def test_goes_on(tmp_path):
    """Deaths and what was read of them are known to the next run."""
    job, _ = death(7, "null-task", NULL)
    left = {"job": asdict(job), "about": "CPU 1", "event": NULL}
    line = json.dumps({**left, "core": "cores/a.core", "console": "consoles/a"})
    (tmp_path / "deaths").write_text(f"{line}\n")
    (tmp_path / "consoles").mkdir()
    (tmp_path / "consoles/a").write_text(
        "[    0.000000] Linux version 6.1.0 (a@b) #1 SMP\n"
        "[    9.000000] BUG: kernel NULL pointer dereference, address: 0\n"
        "[    9.000001] RIP: 0010:buggy_store_null+0x1/0x10 [buggy]\n"
    )
    (tmp_path / "vmlinux").write_text(
        json.dumps({"name": job.name, "signature": WORK}) + "\n"
    )
    deaths = BugDeaths(tmp_path)
    [(known, made)] = deaths.made().items()
    assert (known, made.event) == (job, NULL)
    assert made.core == tmp_path / "cores/a.core"
    assert deaths.signatures() == {}
    deaths.read()
    assert deaths.signatures() == {str(made.console): NULL}
    assert deaths.with_vmlinux() == {job.name: WORK}
    deaths.forget()
    assert (deaths.signatures(), deaths.with_vmlinux()) == ({}, {})
    assert deaths.end() == 0
