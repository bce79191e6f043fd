# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the README and the manual show has been run, and what they name is there.

Each shell session says above itself how it is run: ``.. session: KIND`` (in Markdown
``<!-- session: KIND -->``), with ``, status N`` if its last command does not end with
0. The kinds are in :data:`KINDS`. Output is compared line by line; words with digits in
them match any others, and ``...`` matches anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import kmemdump
from kmemdump.cli.main import _program
from kmemdump.errors import ExitCode
from kmemdump.lab import (
    AARCH64,
    CrashType,
    Machine,
    Setup,
    crash_guest,
    default_folder,
)
from kmemdump.lab.firmware import Firmware
from kmemdump.sealing import make_seal
from rigs.dead_phone import leave, serve_device
from rigs.keys import age_key
from rigs.manual import DOCS, KINDS, PAGES, Session, read_sessions
from rigs.small_core import write
from rigs.snapshots import Snapshots

PATIENCE = 300
"""Seconds; the host may be busy."""

_DIGITS = re.compile(r"\w*\d\w*(?:[.,:+-]\w*\d\w*)*")

SESSIONS = [session for page in PAGES for session in read_sessions(page)]


def test_every_kind_is_used() -> None:
    assert {session.kind for session in SESSIONS} == set(KINDS)


def normal(line: str) -> str:
    return " ".join(_DIGITS.sub("0", line).split())


def pattern(output: str) -> str:
    parts = []
    for line in output.splitlines():
        pieces = [re.escape(normal(piece)) for piece in line.split("...")]
        parts.append(
            r"(?:.*\n)*?" if line.strip() == "..." else r" ?.*? ?".join(pieces) + r"\n"
        )
    return "".join(parts)


def check_output(session: Session, command: str, expected: str, said: str) -> None:
    lines = "".join(
        f"{normal(line)}\n"
        for line in said.splitlines()
        if not line.endswith("; booting it again")  # An emulated CPU is not perfect.
    )
    assert re.fullmatch(pattern(expected), lines), (
        f"{session}: $ {command}\nprints\n{said}\nand not\n{expected}"
    )


def lab_environment() -> dict[str, str]:
    """For what has a home of its own: the lab is where it is here."""
    return {**environment(), "KMEMDUMP_LAB": str(default_folder(os.environ).absolute())}


def environment() -> dict[str, str]:
    programs = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "COLUMNS": "80",
        "HOME": "/nonexistent",
    }


def run_session(
    session: Session, folder: Path, environ: Mapping[str, str] | None = None
) -> None:
    end = "@@@ status"
    script = "\n".join(
        f"{run_instead(command)}\nprintf '%s %d\\n' '{end}' $?"
        for command, _ in session.commands
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment() if environ is None else environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=1800,
    )
    *parts, rest = re.split(rf"{end} (\d+)\n", done.stdout)
    assert not rest
    last = len(session.commands) - 1
    for i, (command, expected) in enumerate(session.commands):
        said, status = parts[2 * i], int(parts[2 * i + 1])
        assert status == (session.status if i == last else 0), f"{command}:\n{said}"
        check_output(session, command, expected, said)


RECIPES = {
    "make demo": "kmemdump demo -o build/demo",
    "make demo BACKEND=minidump": (
        "kmemdump demo -o build/demo --arch aarch64 --backend minidump"
    ),
    "make demo BACKEND=kdump": "kmemdump demo -o build/demo --backend kdump",
}
"""The Makefile's, without making a second virtual environment."""


def run_instead(command: str) -> str:
    return RECIPES.get(command, command)


def parametrize(*kinds: str) -> pytest.MarkDecorator:
    # In the order of the kinds: a machine dies once.
    chosen = [
        pytest.param(s, id=str(s), marks=() if is_quick(s) else pytest.mark.matrix)
        for kind in kinds
        for s in SESSIONS
        if s.kind == kind
    ]
    return pytest.mark.parametrize("session", chosen)


def is_quick(session: Session) -> bool:
    """Whether "make test" runs it: what newcomers read, and what boots nothing."""
    first = ("README.md", "docs/tutorial.rst", "docs/howto/vm.rst")
    return session.page in first or session.kind in ("phone", "sealing")


class World:
    """A folder with a VM that lives and dies."""

    def __init__(self, folder: Path, machine: Machine, vmlinux: Path) -> None:
        self.folder = folder
        self._machine = machine
        self._dead = False
        assert machine.ram is not None
        for name, path in (
            ("vm.qmp", machine.qmp),
            ("vm.ram", machine.ram),
            ("vmlinux", vmlinux),
        ):
            (folder / name).symlink_to(path)
        for path in (DOCS / "examples").rglob("*.py"):
            shutil.copy(path, folder)

    def kill(self) -> None:
        crash_guest(self._machine, CrashType.PANIC)
        self._dead = True

    def need(self, kind: str) -> None:
        if kind == "dead" and not (self.folder / "vmcore").exists():
            if not self._dead:
                self.kill()
            self._machine.pause()
            self._machine.full_dump(self.folder / "vmcore")
            self.run("kmemdump", "capture", "qmp:vm.qmp", "-o", "vm.core")
        assert kind == "dead" or not self._dead

    def run(self, *argv: str) -> None:
        subprocess.run(argv, cwd=self.folder, env=environment(), check=True)


@pytest.fixture(scope="module")
def world(
    snapshots: Snapshots,
    make_setup: Callable[..., Setup],
    vmlinux: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("docs")
    with snapshots.machine(make_setup("6.1")) as machine:
        yield World(folder, machine, vmlinux("6.1"))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.mark.vm
@parametrize("vm", "watch", "dead")
def test_session(session: Session, world: World) -> None:
    world.need(session.kind)
    if session.kind == "watch":
        watch_session(session, world)
    else:
        run_session(session, world.folder)


@parametrize("sealing")
def test_sealing_session(session: Session, tmp_path: Path) -> None:
    if not session.commands[0][0].startswith("age-keygen"):
        key = age_key(tmp_path, "key.txt")
        write(tmp_path / "plain.core")
        write(tmp_path / "sealed.core", seal=make_seal([key.public]))
    run_session(session, tmp_path)


@pytest.mark.slow
@parametrize("phone")
def test_phone_session(session: Session, tmp_path: Path) -> None:
    leave(tmp_path)
    with closing(serve_device(tmp_path / "phone.sock")):
        run_session(session, tmp_path)


def watch_session(session: Session, world: World) -> None:
    ((command, expected),) = session.commands
    log = world.folder / "watch.log"
    with log.open("w") as output:
        watching = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=world.folder,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while "marked" not in log.read_text():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            world.kill()
            assert watching.wait(PATIENCE) == session.status
        finally:
            watching.kill()
            watching.wait()
    check_output(session, command, expected, log.read_text())


@pytest.mark.vm
@parametrize("demo")
def test_demo_session(session: Session, demo_folder: Path) -> None:
    if not (demo_folder / "build").exists():
        argv = ["kmemdump", "demo", "-o", "build/demo"]
        subprocess.run(argv, cwd=demo_folder, env=lab_environment(), check=True)
    run_session(session, demo_folder)


@pytest.fixture(scope="module")
def arm(
    snapshots: Snapshots,
    make_setup: Callable[..., Setup],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Path]]:
    """``arm(kind)`` is a folder for sessions of a kind."""
    folder = tmp_path_factory.mktemp("arm")
    setup = make_setup("6.12", architecture=AARCH64, firmware=True)
    with ExitStack() as stack:
        machine = stack.enter_context(snapshots.machine(setup))
        (folder / "phone.qmp").symlink_to(machine.qmp)
        mark = ["kmemdump", "mark", "qmp:phone.qmp", "--no-encryption"]

        def bring(kind: str) -> Path:
            if kind == "arm-dead" and not (folder / "dump").exists():
                subprocess.run(mark, cwd=folder, env=environment(), check=True)
                crash_guest(machine, CrashType.PANIC)
                machine.pause()
                firmware = stack.enter_context(closing(Firmware(machine)))
                firmware.leave_folder(folder / "dump")
                firmware.leave_image(folder / "rawdump.img")
                stack.enter_context(firmware.device(folder / "phone.sock"))
            return folder

        yield bring


@pytest.mark.vm
@parametrize("arm", "arm-dead")
def test_arm_session(session: Session, arm: Callable[[str], Path]) -> None:
    run_session(session, arm(session.kind))


@pytest.mark.vm
@parametrize("arm-demo", "server-demo")
def test_other_demo_session(session: Session, tmp_path: Path) -> None:
    run_session(session, tmp_path, lab_environment())


@pytest.mark.vm
def test_example_vm(tmp_path: Path) -> None:
    argv = [sys.executable, DOCS / "examples/vm.py"]
    with subprocess.Popen(
        argv,
        cwd=tmp_path,
        env=lab_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert "press Enter" in process.stdout.readline()
        assert (tmp_path / "vm.qmp").is_socket()
        said, _ = process.communicate("\n\n", timeout=PATIENCE)
    assert process.returncode == 0
    assert "dead" in said


def verbs() -> dict[str, set[str]]:
    """Each verb's options."""
    context = click.Context(_program, info_name="kmemdump")
    found = {}
    for name in _program.list_commands(context):
        verb = _program.get_command(context, name)
        assert verb is not None
        parts = verb.commands.values() if isinstance(verb, click.Group) else ()
        options = [
            parameter
            for one in (verb, *parts)
            for parameter in one.get_params(context)
            if isinstance(parameter, click.Option)
        ]
        found[name] = {text for option in options for text in option.opts}
    return found


def check_options(text: str, known: Mapping[str, set[str]]) -> None:
    """Check that the verbs that a text uses have the options that it gives them."""
    for verb, rest in re.findall(r"kmemdump ([a-z]+)((?: [^\n`|;]*)?)", text):
        if verb not in known:
            continue  # A sentence.
        rest = rest.partition(" -- ")[0]  # What follows is for another program.
        used = set(re.findall(r"(?:^| )(--[a-z][a-z-]*|-[a-z])(?=[ =]|$)", rest))
        assert used <= known[verb], f"kmemdump {verb}{rest}"


def test_every_verb_is_documented() -> None:
    reference = (DOCS / "reference/kmemdump.rst").read_text()
    documented = re.findall(r"^\.\. kmemdump-verb:: (\w+)$", reference, re.MULTILINE)
    assert documented == list(verbs())


@pytest.mark.parametrize("verb", verbs())
def test_help_of_every_verb_has_examples(verb: str) -> None:
    text = CliRunner().invoke(_program, [verb, "--help"]).output
    assert re.search(rf"^  (.* \| )?kmemdump {verb}( |$)", text, re.MULTILINE)
    check_options(text.partition("\nOptions:")[0], verbs())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_exists(page: Path) -> None:
    known = verbs()
    text = re.sub(r"\\\n", " ", page.read_text())
    text = re.sub(r"'[^'\n]*'", "", text)  # What is asked may have options, too.
    check_options(text, known)
    everything = set().union(*known.values(), {"--version", "--help"})
    named = set(re.findall(r"`(--[a-z][a-z-]+)", text))
    assert named <= everything


def test_every_public_name_is_documented() -> None:
    reference = (DOCS / "reference/api.rst").read_text()
    documented = re.findall(
        r"^\.\. auto\w+:: kmemdump\.(\w+)$", reference, re.MULTILINE
    )
    assert sorted(documented) == sorted(kmemdump.__all__)


def test_every_exit_code_is_documented() -> None:
    reference = (DOCS / "reference/kmemdump.rst").read_text()
    section = reference.partition("Exit status")[2].partition("Environment")[0]
    codes = {int(code) for code in re.findall(r"^``(\d+)``$", section, re.MULTILINE)}
    assert codes == {*map(int, ExitCode), 130}


def test_manual_builds(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs Sphinx; 'make docs' installs it")
    options = ("-q", "-W", "--keep-going", "-d", tmp_path / "doctrees")
    for builder in ("html", "man"):
        argv = [sys.executable, "-m", "sphinx", *options, "-t", builder, "-b", builder]
        subprocess.run([*argv, DOCS, tmp_path / builder], check=True)
    pages = {path.name for path in (tmp_path / "man").glob("*.1")}
    assert pages == {"kmemdump.1", *(f"kmemdump-{verb}.1" for verb in verbs())}
    page = (tmp_path / "man/kmemdump-report.1").read_text()
    assert "\\-\\-html FILE" in page
    reference = (tmp_path / "html/reference/kmemdump.html").read_text()
    assert "With --backend minidump" in reference  # And no dash of a sentence.
    # It is the manual's page that other pages of the manual link to.
    assert not (tmp_path / "html/man").exists()
