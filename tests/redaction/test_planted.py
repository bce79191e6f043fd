# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets are planted in a guest; none is in what is left of its core image."""

import re
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from kmemdump.core import open_core
from kmemdump.coreimage import read_core, verify
from kmemdump.errors import FormatError
from kmemdump.lab import CrashType, crash_guest
from kmemdump.marking.capture import capture
from kmemdump.opening import open_target
from kmemdump.redaction.policy import load_policy
from kmemdump.redaction.redact import redact
from kmemdump.sealing import make_seal
from rigs.keys import Key, age_key
from rigs.planted import WORD, memory_of, needles, needles_left, plant, secret
from rigs.programs import KMEMDUMP, run, run_kmemdump


class Planted(NamedTuple):
    """The core image of a dead machine that had the secrets."""

    core: Path
    sealed: Path
    """The same, sealed."""
    key: Key
    full: bytes
    """The machine's whole memory."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("6.12", marks=[pytest.mark.vm]),
        pytest.param("6.1", marks=[pytest.mark.vm, pytest.mark.matrix]),
        pytest.param("newest", marks=[pytest.mark.vm, pytest.mark.matrix]),
    ],
)
def planted(request, snapshots, make_setup, tmp_path_factory):
    """A core image of a dead machine that had the secrets."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    folder = tmp_path_factory.mktemp("planted")
    with snapshots.machine(make_setup(request.param)) as machine:
        plant(machine, folder)
        crash_guest(machine, CrashType.PANIC)
        machine.pause()
        full = machine.ram.read_bytes()
        core, sealed, key = folder / "vm.core", folder / "sealed.core", age_key(folder)
        with open_target(f"qmp:{machine.qmp}") as target:
            # Programs' arguments and environment are kept only on request.
            captured = capture(target, questions=["ps -a"])
            captured.save(core)
            captured.save(sealed, seal=[key.public])
    return Planted(core, sealed, key, full)


@pytest.fixture(
    scope="module",
    params=["strict", pytest.param("share", marks=pytest.mark.matrix)],
)
def redacted(request, planted, tmp_path_factory):
    """Of the sealed one: so what is sealed is redacted, too."""
    path = tmp_path_factory.mktemp("redacted") / f"{request.param}.core"
    with open_target(str(planted.sealed), identity=planted.key.file) as target:
        found = redact(target, load_policy(request.param))
        found.save(path)
        yield request.param, path, found


def test_the_secrets_were_there(planted):
    missing = {*needles()} - needles_left(planted.full)
    assert missing == set()
    held = needles_left(planted.core.read_bytes())
    assert held >= {
        *("argv", "envi", "logl", "host", "comm", "addr", "mntd"),
        *("SECRET", "word", "written"),
    }


def test_no_secret_is_left_but_what_share_keeps(redacted):
    policy, path, _ = redacted
    # In the file, and in the memory that is compressed there.
    data = path.read_bytes() + memory_of(path)
    if policy == "strict":
        assert needles_left(data) == set()
        return
    # The name of the task, and the line of the log.
    assert needles_left(data) == {"comm", "logl", "SECRET", "word"}
    # A record's number comes before its text: of 7.3, "?" is its last byte.
    texts = set(re.findall(rb"[\w. -]*" + WORD.encode() + rb"[\x20-\x7e]*", data))
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


def test_it_can_be_sealed_for_another_key(planted, redacted, tmp_path):
    policy, path, found = redacted
    theirs, core = age_key(tmp_path), tmp_path / "public.core"
    found.save(core, make_seal([theirs.public]))
    with open_core(core, identity=theirs.file) as opened:
        assert opened.verify() == []
        assert opened.manifest.redacted == policy
    with pytest.raises(FormatError, match="sealed for other keys"):
        open_core(core, identity=planted.key.file)
    plain, identity = tmp_path / "plain.core", ("--identity", theirs.file)
    assert run_kmemdump("unseal", core, "-o", plain, *identity).returncode == 0
    assert plain.read_bytes() == path.read_bytes()


@pytest.mark.matrix
def test_the_verbs_go_from_sealed_to_sealed(planted, redacted, tmp_path):
    """And no file on the way has a secret."""
    policy, path, _ = redacted
    theirs, core = age_key(tmp_path), tmp_path / "public.core"
    given = ("--identity", planted.key.file, "--policy", policy)
    folders = {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    redact = (*KMEMDUMP, "redact", planted.sealed, "-o", core)
    said = run(*redact, *given, "--seal", theirs.public, **folders)
    assert said.returncode == 0, said.stderr
    report = run_kmemdump("report", planted.sealed, "--redact", *given)
    plain, identity = tmp_path / "plain.core", ("--identity", theirs.file)
    before = {it for it in tmp_path.rglob("*") if it.is_file()}
    before.remove(theirs.file)  # A key of age's begins with AGE-SECRET-KEY.
    assert core in before
    assert run_kmemdump("unseal", core, "-o", plain, *identity).returncode == 0
    assert plain.read_bytes() == path.read_bytes()
    kept = needles_left(path.read_bytes()) if policy == "share" else set()
    for text in (said.stdout, said.stderr, report.stdout, report.stderr):
        assert needles_left(text.encode()) <= kept
    for file in before:
        assert needles_left(file.read_bytes()) == set(), file
