# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets are planted in a guest; none is in what is left of its core image."""

import re
import shutil

import pytest

from kmemdump.coreimage import read_core, verify
from kmemdump.lab import CrashType, crash_guest
from kmemdump.marking.capture import capture
from kmemdump.opening import open_target
from kmemdump.redaction.policy import load_policy
from kmemdump.redaction.redact import redact
from rigs.planted import ADDRESS, WORD, count, plant, secret


def needles_left(data: bytes) -> set[str]:
    """Return the kinds of secrets that are found, and whether a part of one is."""
    found = {kind for kind, number in count(data).items() if number}
    parts = {"SECRET": b"SECRET", "word": WORD.encode(), "written": ADDRESS.encode()}
    return found | {name for name, it in parts.items() if it in data}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("6.12", marks=[pytest.mark.vm]),
        pytest.param("6.1", marks=[pytest.mark.vm, pytest.mark.matrix]),
        pytest.param("newest", marks=[pytest.mark.vm, pytest.mark.matrix]),
    ],
)
def planted(request, snapshots, make_setup, tmp_path_factory):
    """The core image of a dead machine that had the secrets, and its whole memory."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    folder = tmp_path_factory.mktemp("planted")
    with snapshots.machine(make_setup(request.param)) as machine:
        plant(machine, folder)
        crash_guest(machine, CrashType.PANIC)
        machine.pause()
        full = machine.ram.read_bytes()
        with open_target(f"qmp:{machine.qmp}") as target:
            # Programs' arguments and environment are kept only on request.
            capture(target, questions=["ps -a"]).save(folder / "vm.core")
    return folder / "vm.core", full


@pytest.fixture(
    scope="module",
    params=["strict", pytest.param("share", marks=pytest.mark.matrix)],
)
def redacted(request, planted, tmp_path_factory):
    path = tmp_path_factory.mktemp("redacted") / f"{request.param}.core"
    with open_target(str(planted[0])) as target:
        found = redact(target, load_policy(request.param))
        found.save(path)
    return request.param, path, found


def test_the_secrets_were_there(planted):
    core, full = planted
    assert {kind for kind, number in count(full).items() if not number} == set()
    held = needles_left(core.read_bytes())
    assert held >= {
        *("argv", "envi", "logl", "host", "comm", "addr", "mntd"),
        *("SECRET", "word", "written"),
    }


def test_no_secret_is_left_but_what_share_keeps(redacted):
    policy, path, _ = redacted
    data = path.read_bytes()
    if policy == "strict":
        assert needles_left(data) == set()
        return
    # The name of the task, and the line of the log.
    assert needles_left(data) == {"comm", "logl", "SECRET", "word"}
    texts = set(re.findall(rb"[\x20-\x7e]*" + WORD.encode() + rb"[\x20-\x7e]*", data))
    assert texts == {WORD.encode(), f"{secret('logl')} from xx.xx.xx.xx".encode()}


def test_answers_are_the_same_but_for_what_was_removed(redacted):
    _, _, found = redacted
    changes = {(it.area, it.question): it for it in found.changes}
    assert [it.question for it in found.changes if it.problem] == []
    for question in (
        *(("irq", "irq_counts"), ("modules", "mod"), ("sched", "run_queues")),
        *(("memory", "kmem -i"), ("memory", "kmem -z"), ("memory", "ram")),
        *(("coreinfo", "memory_sections"), ("stacks", "running_stacks")),
    ):
        assert changes[question].same, question
    # As many lines: each task, each mount, each record is there.
    for question in ("ps", "mount", "log", "irq", "timer", "dev", "net", "ipcs"):
        change = next(it for it in found.changes if it.question == question)
        assert change.gone == 0, question


@pytest.mark.matrix
def test_a_second_time_changes_nothing(redacted, tmp_path):
    policy, path, _ = redacted
    again = tmp_path / "again.core"
    with open_target(str(path)) as target:
        found = redact(target, load_policy(policy))
        found.save(again)
    assert again.read_bytes() == path.read_bytes()
    assert list(found.removed) == []
    assert found.registers == 0
    assert all(change.same for change in found.changes)


def test_what_is_left_is_a_whole_core_image(redacted):
    policy, path, _ = redacted
    with read_core(path) as core:
        assert verify(core) == []
        assert core.manifest is not None
        assert core.manifest.redacted == policy
