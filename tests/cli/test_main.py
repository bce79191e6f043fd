# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: help, wrong uses, exit codes, and what a bug looks like."""

import importlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from kmemdump import errors
from kmemdump.areas import AREAS
from kmemdump.cli import main
from kmemdump.cli.main import _VERBS
from kmemdump.cli.shared.messages import held_back_warnings
from kmemdump.coreimage import read_core, verify
from kmemdump.errors import ExitCode
from kmemdump.formats.kinfo import KinfoLayout
from kmemdump.watch import VmAction
from rigs.phone import Phone
from rigs.synthetic import elf_core, vmcoreinfo, vmcoreinfo_note

each_verb = pytest.mark.parametrize("verb", _VERBS)
OF_A_TARGET = ("areas", "ask", "capture", "info", "report")


def command_of(verb: str) -> click.Command:
    found: click.Command = importlib.import_module(f"kmemdump.cli.{verb}").command
    return found


# Help


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], *([v, "-h"] for v in _VERBS)]
)
def test_help_does_not_wait_for_drgn(arguments):
    script = (
        "import sys\nfrom kmemdump.cli import main\n"
        f"status = main({arguments!r})\n"
        "heavy = {'drgn', '_drgn', 'qemu', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Usage: kmemdump")


def test_a_verb_does_not_wait_for_what_only_others_need():
    script = (
        "import sys, kmemdump.cli.ask, kmemdump.report\n"
        "others = {'multiprocessing', 'tomllib', 'jinja2'} & set(sys.modules)\n"
        "sys.exit(f'imported {others}' if others else 0)"
    )
    ended = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_the_list_of_verbs(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, summary in _VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(summary)}$", out, re.MULTILINE)


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert re.search(r"kmemdump, version \d+\.\d+", capsys.readouterr().out)


@each_verb
def test_every_option_is_explained(verb):
    found = command_of(verb)
    assert found.help
    for parameter in found.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("verb", OF_A_TARGET)
def test_verbs_of_a_target_have_the_same_options(verb):
    names = {name for parameter in command_of(verb).params for name in parameter.opts}
    assert names >= {"--vmlinux", "--vmcoreinfo", "--memory-map", "--damaged"}


def test_what_help_says_is_what_the_library_has():
    """What is said twice, so that help need not load the library."""
    watch = {param.name: param for param in command_of("watch").params}
    assert list(watch["then"].type.choices) == [str(item) for item in VmAction]
    mark = {param.name: param for param in command_of("mark").params}
    assert set(mark["layout"].type.choices) == {item.value for item in KinfoLayout}


# Wrong uses


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nosuch"], "error: no verb 'nosuch'; 'kmemdump --help' lists them"),
        (["reprot"], "no verb 'reprot', did you mean report?"),
        (["--nosuch"], "no such option '--nosuch'"),
        (["ask"], "missing argument 'CORE'"),
        (["ask", "x", "nosuch"], "no crash command 'nosuch'; 'help' lists them"),
        (["ask", "x", "bt --nosuch"], "'help bt' shows its usage"),
        (["ask", "x", "none.py"], "none.py: No such file or directory"),
        (["areas", "--nosuch"], "no such option '--nosuch'"),
        (["areas", "x", "--area", "nosuch"], "no area 'nosuch'; there are coreinfo,"),
        (["areas", "x", "--area", "-nosuch"], "no area '-nosuch'; there are coreinfo,"),
        (["areas", "x", "--ask", ""], "an empty question"),
        (["capture", "x"], "missing option '-o' / '--output'"),
        (["capture"], "missing argument 'TARGET'"),
        (["capture", "x", "-o", "y", "--region", "x"], "expected NAME=ADDRESS:SIZE"),
        (["capture", "x", "-o", "y", "--region", "x=1:"], "expected NAME=ADDRESS:SIZE"),
        (["capture", "x", "-o", "y", "--region", "=1:2"], "expected NAME=ADDRESS:SIZE"),
        (["capture", "x", "-o", "y", "--region", "x=-1:2"], "not within 64 bits"),
        (["capture", "x", "-o", "y", "--region", "x=1:0"], "not within 64 bits"),
        (
            ["capture", "x", "-o", "y", "--region", "x=0xffffffffffffffff:2"],
            "not within 64 bits",
        ),
        (["info", ""], "no target, expected live, qmp:SOCKET, pid:PID or the path"),
        (["info", "file:"], "no target, expected live, qmp:SOCKET, pid:PID or the"),
        (["info", "pid:"], "pid:: names no process, expected pid:PID"),
        (["info", "pid:0x7"], "pid:0x7: names no process, expected pid:PID"),
        (["info", "pid:1", "--memory-map", "0"], "the guest's kernel knows the memory"),
        (["info", "qmp:x", "--memory-map", "0"], "QEMU knows the memory map"),
        (["report", "x", "--lines", "-1"], "'--lines'"),
        (["report"], "missing argument 'CORE|LOG'; 'kmemdump report --help' explains"),
        (["info", "qmp:"], "qmp: names no socket, expected qmp:SOCKET"),
        (["info", "ch:"], "ch: names no socket, expected ch:SOCKET"),
        (["info", "libvirt:"], "libvirt: names no domain, expected libvirt:[URI#]"),
        (
            ["ask", "x", "moutn"],
            "no crash command 'moutn', did you mean mount?; 'help'",
        ),
        (["info"], "missing argument 'CORE'"),
        (["mark"], "missing argument 'TARGET'"),
        (["mark", "x", "--off", "--daemon"], "exclude each other"),
        (["mark", "x", "--interval", "1"], "--interval needs --daemon"),
        (["mark", "x", "--leave-registered"], "--leave-registered needs --daemon"),
        (["mark", "x", "--scratch", "1:1", "--scratch-item", "9"], "exclude each"),
        (["mark", "x", "--smem", "x"], "expected ADDRESS:SIZE"),
        (["mark", "x", "--backend", "kinfo", "--daemon"], "never change: expected no"),
        (["mark", "x", "--area", "nosuch"], "no area 'nosuch'; there are coreinfo,"),
        (["watch", "-o", "."], "no VM, expected a QMP socket, a folder"),
        (["watch", "x"], "missing option '-o' / '--output'"),
        (["watch", "x", "-o", ".", "--then", "pray"], "'pray' is not one of"),
        (
            ["watch", "x", "-o", ".", "--interval", "10s"],
            "'10s' is not a valid float range, expected seconds, 1 to 86400",
        ),
    ],
)
def test_wrong_use(arguments, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == ExitCode.USAGE
    out, err = capsys.readouterr()
    assert problem in err
    assert err.startswith("kmemdump: error: ")
    assert len(err.splitlines()) == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_no_verb_is_a_question_for_help(capsys):
    assert main([]) == ExitCode.USAGE
    assert "Usage: kmemdump" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["minidump", "kinfo"])
def test_marking_a_file(backend, tmp_path, capsys):
    """Which cannot be written, whatever is in it."""
    path = tmp_path / "core"
    path.write_bytes(elf_core([(0, b"x")], vmcoreinfo_note(vmcoreinfo())))
    assert main(["mark", str(path), "--backend", backend]) == ExitCode.UNREADABLE
    assert "its memory cannot be written, expected live or" in capsys.readouterr().err


def test_a_memory_map_of_what_has_one(tmp_path, capsys):
    path = tmp_path / "core"
    path.write_bytes(elf_core([(0, b"x")], vmcoreinfo_note(vmcoreinfo())))
    assert main(["info", str(path), "--memory-map", "0"]) == ExitCode.USAGE
    assert "--memory-map is not allowed" in capsys.readouterr().err


# QMP sockets


@contextmanager
def server(path: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that is not QEMU, behind a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(30)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        talk(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        ended.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
        thread.join()


def hang_up(connection: socket.socket) -> None:
    pass


def babble(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.recv(100)


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(b'{"QMP":' * 10_000)


def greet_and_refuse(connection: socket.socket) -> None:
    greeting = {"QMP": {"version": {}, "capabilities": []}}
    connection.sendall(json.dumps(greeting).encode() + b"\r\n")
    while connection.recv(1000):
        error = {"error": {"class": "GenericError", "desc": "not today"}}
        connection.sendall(json.dumps(error).encode() + b"\r\n")


def hang(connection: socket.socket) -> None:
    connection.settimeout(60)
    connection.recv(1000)
    connection.recv(1000)


@pytest.mark.parametrize("talk", [hang_up, babble, flood, greet_and_refuse, hang])
def test_a_socket_that_is_not_qemus(talk, tmp_path, capsys):
    path = tmp_path / "qmp"
    with server(path, talk):
        assert main(["ask", f"qmp:{path}", "log"]) == ExitCode.UNREADABLE
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"kmemdump: error: {path}: ")


def make_nothing(path: Path) -> None:
    pass


def make_file(path: Path) -> None:
    path.write_text("not a socket")


def make_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    "make", [make_nothing, make_file, Path.mkdir, make_dead_socket]
)
@pytest.mark.parametrize("verb", OF_A_TARGET)
def test_a_socket_that_nobody_serves(make, verb, tmp_path, capsys):
    path = tmp_path / "qmp"
    make(path)
    more = {"ask": ["log"], "capture": ["-o", str(tmp_path / "core")]}.get(verb, [])
    assert main([verb, f"qmp:{path}", *more]) == ExitCode.UNREADABLE
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert f"{path}: cannot connect: " in err
    assert "expected a socket of QEMU's -qmp unix:PATH,server=on" in err


def test_a_path_that_is_too_long_for_a_socket(tmp_path, capsys):
    path = tmp_path / ("x" * 200)
    assert main(["ask", f"qmp:{path}", "log"]) == ExitCode.UNREADABLE
    assert len(capsys.readouterr().err.splitlines()) == 1


# How a run ends


@pytest.fixture
def verb(monkeypatch) -> Callable[[Callable[[], object]], None]:
    """Replace what the verb 'areas' does."""

    def replace(what: Callable[[], object]) -> None:
        module = importlib.import_module("kmemdump.cli.areas")
        monkeypatch.setattr(module, "command", click.Command("areas", callback=what))

    return replace


def raiser(error: BaseException) -> Callable[[], object]:
    def put() -> None:
        raise error

    return put


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (errors.TargetError("x: gone\ntry again"), 3, "error: x: gone; try again"),
        (errors.FormatError("x", "no"), 3, "error: x: no"),
        (errors.NotCapturedError("0x10"), 3, "error: 0x10"),
        (errors.UnsupportedError("no BTF"), 3, "error: no BTF"),
        (errors.UsageError("what?"), 2, "error: what?"),
        (errors.RegistrationError("full"), 1, "error: full"),
        (OSError(28, "No space left on device"), 3, "error: No space left on device"),
        (FileNotFoundError(2, "Not there", "x"), 3, "error: x: Not there"),
        (MemoryError(), 3, "error: not enough memory for what the target claims"),
        (
            errors.TargetError("x\x1b[31m\r\x00\udcff"),
            3,
            r"error: x\x1b[31m; \x00\udcff",
        ),
    ],
)
def test_errors_are_one_line(error, status, line, verb, capsys):
    verb(raiser(error))
    assert main(["areas"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"kmemdump: {line}")
    assert len(err.splitlines()) == 1


def test_ctrl_c(verb, capsys):
    verb(raiser(KeyboardInterrupt()))
    assert main(["areas"]) == 130
    assert capsys.readouterr().err.strip() == "kmemdump: stopped"


@pytest.mark.parametrize("kind", [ZeroDivisionError, EOFError])
def test_a_bug_is_told_as_one(kind, verb, capsys):
    verb(raiser(kind("oops")))
    assert main(["areas"]) == ExitCode.BUG
    err = capsys.readouterr().err
    assert f"{kind.__name__}: oops" in err
    assert err.splitlines()[-1].startswith("kmemdump: a bug of kmemdump: please report")


@pytest.mark.parametrize("status", [None, 0, 1, 3])
def test_a_verb_gives_the_exit_status(status, verb):
    verb(lambda: status)
    assert main(["areas"]) == (status or 0)


def kmemdump(*arguments: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen((sys.executable, "-m", "kmemdump", *arguments), **options)


def test_a_reader_that_leaves():
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = kmemdump("areas", stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert process.communicate()[1] == b""
    assert process.returncode == ExitCode.INCOMPLETE


def test_output_that_cannot_be_written():
    with open("/dev/full", "wb") as full:
        process = kmemdump("areas", "--json", stdout=full, stderr=subprocess.PIPE)
        err = process.communicate()[1].decode()
    assert process.returncode == ExitCode.UNREADABLE
    assert "No space left on device" in err.splitlines()[0]
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("redirections", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(tmp_path, redirections):
    """Files must not get the numbers of standard streams that are closed."""
    Phone.with_log().folder(tmp_path / "dump", listed=True)
    core = tmp_path / "core"
    argv = [sys.executable, "-m", "kmemdump", "collect", tmp_path / "dump", "-o", core]
    shell = ["sh", "-c", f'"$@" {redirections}', "sh", *argv]
    assert subprocess.run(shell, capture_output=True, check=False).returncode == 0
    with read_core(core) as image:
        assert verify(image) == []


def test_ctrl_c_while_the_program_is_loaded():
    code = """
import sys

class CtrlC:
    def find_spec(self, name, *_):
        if name == "kmemdump.cli.main":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
from kmemdump.__main__ import run
run()
"""
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "kmemdump: stopped\n")


def test_names_in_no_encoding(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe"
    process = subprocess.Popen(
        (sys.executable, "-m", "kmemdump", "info", name), stderr=subprocess.PIPE
    )
    err = process.communicate()[1].decode()
    assert process.returncode == ExitCode.UNREADABLE
    assert r"/\udcff\udcfe: No such file or directory" in err


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_knows_few_characters(encoding):
    process = kmemdump(
        "areas",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    out = process.communicate()[0]
    assert process.returncode == 0
    assert b"coreinfo" in out


# What is printed


def test_areas_without_a_target(capsys):
    assert main(["areas", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [area["name"] for area in told["areas"]] == [area.name for area in AREAS]
    assert main(["areas"]) == 0
    out = capsys.readouterr().out
    for area in AREAS:
        assert area.name in out


def test_warnings_are_lines_when_all_is_done(capsys):
    with held_back_warnings():
        logging.getLogger("kmemdump.test").warning("%s is odd\nvery", "it")
        logging.getLogger("kmemdump.test").warning("it is odd very")
        logging.getLogger("drgn").warning("so is that")
        logging.getLogger("drgn").info("nobody asked")
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == (
        "kmemdump: warning: it is odd very\nkmemdump: warning: so is that\n"
    )


def test_a_flood_of_warnings(capsys):
    with held_back_warnings():
        for number in range(1000):
            logging.getLogger("kmemdump.test").warning("note %d is odd", number)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "kmemdump: warning: 980 more"


def test_an_error_is_all_there_is_to_say(capsys):
    def fail() -> None:
        logging.getLogger("kmemdump.test").warning("it is odd")
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"), held_back_warnings():
        fail()
    assert capsys.readouterr().err == ""
