# SPDX-License-Identifier: GPL-2.0-or-later
"""What all verbs share: configuration files, completion, colours, -v, --json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kmemdump.cli import main
from kmemdump.cli.main import _VERBS, _program
from kmemdump.cli.shared.configuration import usual_places
from kmemdump.errors import ExitCode
from rigs.small_core import write

# Configuration


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    """The person's own file, which is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "kmemdump" / "config.toml"
    path.parent.mkdir()
    return path


def test_usual_places():
    assert usual_places({"XDG_CONFIG_HOME": "/x"}) == [
        Path("/etc/kmemdump.toml"),
        Path("/x/kmemdump/config.toml"),
    ]
    assert usual_places({})[1] == Path.home() / ".config/kmemdump/config.toml"


def test_a_verbs_table(config, tmp_path, capsys):
    config.write_text("[info]\njson = true\n[watch]\ninterval = 5\n")
    core = write(tmp_path / "core")
    assert main(["info", str(core)]) == 0
    assert json.loads(capsys.readouterr().out)["release"] == "6.1.0-test"


def test_options_of_all_verbs(config, capsys):
    # Those verbs take it that have it.
    config.write_text("json = true\n")
    assert main(["areas"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == 1
    config.write_text("area = ['nosuch']\n")
    assert main(["capture", "x", "-o", "y"]) == ExitCode.USAGE
    assert "no area 'nosuch'" in capsys.readouterr().err


def test_an_option_with_the_name_of_a_verb(config, capsys):
    config.write_text("ask = ['/nosuch.py']\n")
    assert main(["capture", "x", "-o", "y"]) == ExitCode.USAGE
    assert "/nosuch.py" in capsys.readouterr().err
    config.write_text("[ask]\njson = true\n")
    assert main(["capture", "nowhere", "-o", "y"]) == ExitCode.UNREADABLE
    assert "nowhere: No such file" in capsys.readouterr().err


def test_areas_that_are_left_out_are_named(config, capsys):
    """Where they are named on the command line; a file is written with thought."""
    capture = ["capture", "nowhere", "-o", "y"]
    main([*capture, "--area", "kmsg", "--area", "+tasks"])
    note, error = capsys.readouterr().err.splitlines()
    assert note.startswith("kmemdump: --area: only coreinfo, kmsg, tasks; not panic, ")
    assert note.endswith("+NAME adds an area to the default ones")
    assert "nowhere: No such file" in error
    for more in (["+all-stacks"], ["-kmsg"], []):
        main([*capture, *(word for name in more for word in ("--area", name))])
        assert len(capsys.readouterr().err.splitlines()) == 1
    config.write_text("area = ['kmsg']\n")
    main(capture)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_counts_more(config, tmp_path, capsys):
    config.write_text("area = ['nosuch']\n[capture]\narea = ['nosuch2']\n")
    named = tmp_path / "named.toml"
    named.write_text("[capture]\narea = ['nosuch3']\n")
    capture = ["capture", "nowhere", "-o", "y"]
    for arguments, complaint in (
        ([], "no area 'nosuch2'"),
        (["--config", str(named)], "no area 'nosuch3'"),
        (["--config", str(named), "--area", "kmsg"], "nowhere: No such file"),
    ):
        assert main([*capture, *arguments]) in (2, 3)
        assert complaint in capsys.readouterr().err


@pytest.mark.slow
def test_check_rehearses_what_watch_is_configured_to_do(config, capsys):
    for table, complaint in (
        ("[watch]\narea = ['nosuch']\n", "no area 'nosuch'"),
        ("[check]\narea = ['nosuch2']\n[watch]\narea = ['nosuch']\n", "'nosuch2'"),
        ("[watch]\nseal = ['nokey']\n", "nokey: No such file"),
        # Not which VMs, nor how death is detected.
        ("[watch]\nname = ['web*']\nlibvirt = ['']\ninterval = 5\n", "VM nowhere"),
    ):
        config.write_text(table)
        assert main(["check", "nowhere"]) in (2, 3)
        out, err = capsys.readouterr()
        assert complaint.removeprefix("VM ") in out + err
        assert "web" not in out + err
        assert main(["regions", "nowhere"]) == 3
        assert complaint not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nosuch = 1", "no option 'nosuch'; there are"),
        ("[info]\nnosuch = 1", "[info]: no option 'nosuch'; there are"),
        ("[watch]\nnosuch = 1", "[watch]: no option 'nosuch'; there are"),
        ("info = 1", "info is a verb, expected a table [info]"),
        ("[info]\njson = 1", "line 2: json is 1, expected true or false"),
        (
            "[report]\nlines = 'x'",
            "line 2: lines is 'x', expected a number, at least 0",
        ),
        (
            "\n[watch]\n\ninterval = 'fast'",
            "line 4: interval is 'fast', expected seconds, 1 to 86400",
        ),
        ("[info]\njsno = true", "no option 'jsno', did you mean json?; there are"),
        ("area =", "(at its end), expected NAME = VALUE"),
        ("[nosuch]\njson = true", "no option 'nosuch'"),
        ("=", "Invalid"),
    ],
)
def test_wrong_configuration(config, capsys, text, problem):
    config.write_text(text)
    assert main(["info", "x"]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert str(config) in err
    assert problem in err


def test_help_needs_no_configuration(config, capsys):
    config.write_text("nonsense")
    assert main(["--help"]) == 0


@pytest.mark.parametrize("verb", _VERBS)
def test_every_verb_has_them(verb):
    context = click.Context(_program, info_name="kmemdump")
    found = _program.get_command(context, verb)
    parts = found.commands.values() if isinstance(found, click.Group) else [found]
    for part in parts:  # One with parts has the common options itself.
        parameters = [*found.params, *part.params]
        options = {text for parameter in parameters for text in parameter.opts}
        assert {"-v", "--verbose", "--config", "--json"} <= options


# Other comforts


def kmemdump(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kmemdump", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )


COMPLETIONS = {
    "bash": {"COMP_WORDS": "kmemdump re", "COMP_CWORD": "1"},
    "zsh": {"COMP_WORDS": "kmemdump re", "COMP_CWORD": "1"},
    "fish": {"COMP_WORDS": "kmemdump re", "COMP_CWORD": "re"},
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", COMPLETIONS)
def test_shell_completion(shell):
    script = kmemdump(_KMEMDUMP_COMPLETE=f"{shell}_source").stdout
    assert "_KMEMDUMP_COMPLETE" in script
    words = COMPLETIONS[shell]
    said = kmemdump(_KMEMDUMP_COMPLETE=f"{shell}_complete", **words).stdout
    assert "regions" in said
    assert "report" in said
    assert "watch" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("capture --area km", ["file,km", "plain,kmsg"]),
        ("capture --area +km", ["file,+km", "plain,+kmsg"]),
        ("ask vm.core mou", ["file,mou", "plain,mount"]),
        ("report --ht", ["plain,--html"]),
        ("report db2.h", ["file,db2.h"]),
        ("collect qmp:no/s", []),
        ("collect qmp:{}/o", ["plain,qmp:{}/one/", "plain,qmp:{}/other"]),
    ],
)
def test_what_is_completed(line, completed, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "other").touch()
    line = f"kmemdump {line.format(tmp_path)}"
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    said = kmemdump(_KMEMDUMP_COMPLETE="bash_complete", **words).stdout
    assert said.split() == [text.format(tmp_path) for text in completed]


@pytest.mark.parametrize("verb", _VERBS)
def test_completion_takes_no_file_names_away(verb):
    """Wherever any text may stand, the shell completes what it would without us."""
    context = click.Context(_program, info_name="kmemdump")
    found = _program.get_command(context, verb)
    parts = found.commands.values() if isinstance(found, click.Group) else [found]
    for part in parts:
        inner = click.Context(part, context, info_name=part.name)
        for parameter in part.params:
            if isinstance(parameter.type, click.types.StringParamType):
                kinds = [item.type for item in parameter.shell_complete(inner, "x")]
                assert kinds[:1] == ["file"], parameter


@pytest.mark.slow
def test_colours_are_off_where_not_wanted():
    forced = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    assert "\x1b[1m" in kmemdump("areas", **forced).stdout
    assert "\x1b[3" not in kmemdump("areas", NO_COLOR="1", **forced).stdout
    assert "\x1b" not in kmemdump("areas").stdout


def test_verbose(tmp_path, capsys):
    core = write(tmp_path / "core")
    main(["report", str(core), "-v"])
    assert "s: attaching to " in capsys.readouterr().err
    main(["report", str(core)])
    assert "attaching" not in capsys.readouterr().err


def test_pause_is_for_machines(tmp_path, capsys):
    core = write(tmp_path / "core")
    out = tmp_path / "out"
    assert main(["capture", str(core), "-o", str(out), "--pause"]) == ExitCode.USAGE
    assert "only a VM (qmp:SOCKET or pid:PID) can be paused" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("verb", "line", "expected"),
    [
        ("redact", "output = 5", "output is 5, expected text in quotes"),
        ("capture", "output = ['c.core']", "expected one value"),
        ("capture", "output = {a = 1}", "expected text in quotes"),
        ("capture", "output = 1979-05-27", "expected text in quotes"),
        ("capture", "output = true", "expected text in quotes"),
        ("capture", "identity = [5]", "identity is 5, expected text in quotes"),
        ("open", "vmlinux = 3.5", "expected text in quotes"),
        ("watch", "keep = 1.5", "keep is 1.5, expected a number"),
        ("watch", "keep = true", "keep is True, expected a number"),
        ("watch", "interval = '5'", "expected seconds"),
        ("report", "lines = 1.5", "lines is 1.5, expected a number"),
        ("redact", "policy = ['a']", "expected one value"),
        ("watch", "exec = ['x']", "expected one value"),
        ("report", "json = 1", "expected true or false"),
    ],
)
def test_values_of_other_types(config, capsys, verb, line, expected):
    config.write_text(f"[{verb}]\n{line}\n")
    assert main([verb, "/nosuch"]) == 2
    error = capsys.readouterr().err
    assert f"{config}, line 2: " in error
    assert expected in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("line", ["json = true", "[report]\njson = true"])
def test_a_form_of_a_report(config, tmp_path, capsys, line):
    config.write_text(f"{line}\n")
    log = tmp_path / "log"
    log.write_text(
        "[    1.000000] Linux version 6.1 (x)\n"
        "[    2.000000] Kernel panic - not syncing: x\n"
    )
    assert main(["report", str(log)]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["version"] == 1
    config.write_text("[report]\njson = false\n")
    assert main(["report", str(log)]) in (0, 1)
    assert capsys.readouterr().out.startswith("Cause of death")


@pytest.mark.parametrize("size", ["2", "512", "99M"])
def test_memory_in_another_unit(capsys, size):
    verbs = (["ask", "x", "ps"], ["watch", "x", "-o", "y"], ["check", "x"])
    for verb in (*verbs, ["redact", "x"]):
        assert main([*verb, "--max-memory", size]) == 2
        assert "expected at least 100M" in capsys.readouterr().err


def test_a_verb_with_parts_alone_shows_its_help(capsys):
    assert main(["catalogue"]) in (0, 2)
    shown = capsys.readouterr()
    assert "Usage: kmemdump catalogue" in shown.out + shown.err
    assert "error" not in shown.out + shown.err


def test_options_that_need_others(capsys):
    assert main(["areas", "--rows", "5"]) == 2
    assert "--rows needs --backend" in capsys.readouterr().err
    assert main(["areas", "--backend", "minidump"]) == 2
    assert "needs a TARGET" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "has"), [("ask", True), ("report", True), ("redact", False)]
)
def test_advice_names_an_option_of_the_verb(tmp_path, capsys, verb, has):
    path = write(tmp_path / "core")
    path.write_bytes(path.read_bytes()[:-100])
    more = {"ask": ["log"], "redact": ["-o", str(tmp_path / "out")]}
    assert main([verb, str(path), *more.get(verb, [])]) == 3
    error = capsys.readouterr().err
    assert "is truncated" in error
    assert ("--damaged" in error) is has


def test_a_size_in_bytes_is_a_number(config, capsys):
    config.write_text("[capture]\nmax-memory = 1000\n")
    assert main(["capture", "/nosuch", "-o", "x"]) == 2
    assert "is 1000 bytes, expected at least 100M" in capsys.readouterr().err
    config.write_text("[capture]\nmax-memory = 4000000000\n")
    assert main(["capture", "/nosuch", "-o", "x"]) == 3
