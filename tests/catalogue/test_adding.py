# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources become rows: each once, whatever it is, and whoever else adds."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmemdump.bounds.steps import Limits
from kmemdump.catalogue.adding import add_sources
from kmemdump.catalogue.child import Child
from kmemdump.catalogue.local import LocalRunner
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.sources import Source, find_sources
from kmemdump.catalogue.store import Catalogue
from kmemdump.cli import main
from kmemdump.errors import ExitCode, UsageError
from rigs.deaths_rows import made_row
from rigs.small_core import write

pytestmark = pytest.mark.slow

HOST = "here"


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(Place(str(tmp_path / "place")))


def rows(catalogue, columns: str = "source, problem") -> list[tuple]:
    return catalogue.ask(lambda it: it.rows(f"SELECT {columns} FROM deaths ORDER BY 1"))


def add(catalogue, *sources, seconds: float = 60, **options):
    runner = LocalRunner(1, Limits(seconds=seconds), HOST)
    return add_sources(catalogue, find_sources(sources), runner, HOST, **options)


def test_sources_are_found(tmp_path):
    for name in ("a.core", "b/c.core", "b/.hidden/x", "phone/md_KLOG.BIN", ".x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "phone/dump_info.txt").write_text("x")
    os.mkfifo(tmp_path / "b/fifo")
    folder = str(tmp_path)
    below = [source.name.removeprefix(folder) for source in find_sources([folder])]
    assert below == ["/a.core", "/b/c.core", "/phone"]
    found = list(find_sources([f"{folder}/*/*.core", f"{folder}/nosuch"]))
    assert [it.name for it in found] == [f"{folder}/b/c.core", f"{folder}/nosuch"]
    assert found[0].size == 1
    with pytest.raises(UsageError, match="no file matches"):
        list(find_sources([f"{folder}/*.nosuch"]))


def test_what_cannot_be_read_is_a_row_and_the_rest_is_added(catalogue, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    core = write(folder / "1.core")
    (folder / "2-cut.core").write_bytes(core.read_bytes()[:3000])
    (folder / "3-empty").touch()
    os.mkfifo(folder / "4-fifo")
    (folder / "5-text").write_text("no kernel\n" * 9)
    done = add(catalogue, *map(str, sorted(folder.iterdir())), str(folder / "6-gone"))
    assert (done.added, done.known) == (6, 0)
    found = {name.rpartition("/")[2]: problem for name, problem in rows(catalogue)}
    assert "No such file" in found["6-gone"]
    assert "FIFO" in found["4-fifo"]
    assert "empty" in found["3-empty"]
    assert found["2-cut.core"]
    assert len(found) == 6


def test_adding_again_changes_nothing(catalogue, tmp_path):
    core = write(tmp_path / "1.core")
    shutil.copy(core, tmp_path / "copy.core")
    assert add(catalogue, str(core)).added == 1
    # Neither the file itself, which is not read, nor a copy of another name and time.
    assert (add(catalogue, str(core)).known, len(rows(catalogue))) == (1, 1)
    done = add(catalogue, str(tmp_path / "copy.core"), str(core))
    assert (done.added, done.known) == (0, 2)
    assert len(rows(catalogue)) == 1


def test_a_file_that_changed_is_added_and_again_replaces(catalogue, tmp_path):
    path = tmp_path / "a"
    path.write_text("text of one kind\n")
    add(catalogue, str(path))
    path.write_text("text of another kind\n")
    assert add(catalogue, str(path)).added == 1
    before = rows(catalogue, "content, added")
    assert len(before) == 2
    assert add(catalogue, str(path), again=True).added == 1
    after = rows(catalogue, "content, added")
    assert [content for content, _ in after] == [content for content, _ in before]
    assert after != before


def test_two_at_a_time(tmp_path):
    place = str(tmp_path / "place")
    for number in range(6):
        (tmp_path / f"{number}.log").write_text(f"log {number}\n" * 20)

    def run(_):
        program = [sys.executable, "-m", "kmemdump", "catalogue", "add"]
        done = subprocess.run(
            [*program, f"{tmp_path}/*.log", "--to", place, "--jobs", "1"],
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1), done.stderr

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    found = rows(Catalogue(Place(place)))
    assert len(found) == len({source for source, _ in found}) == 6


def test_a_source_in_an_archive(catalogue, tmp_path):
    core = write(tmp_path / "1.core")
    with zipfile.ZipFile(tmp_path / "cores.zip", "w") as archive:
        archive.write(core, "host/1.core")
        archive.writestr("host/2.txt", "text\n")
    url = f"zip://host::file://{tmp_path}/cores.zip"
    assert add(catalogue, url).added == 2
    assert [source for source, _ in rows(catalogue)] == [
        f"zip://host/{name}::file://{tmp_path}/cores.zip"
        for name in ("1.core", "2.txt")
    ]
    assert add(catalogue, str(core)).added == 0  # The same content.


def test_logs_are_grouped_with_their_hardware(catalogue, tmp_path):
    log = """[    1.000000] BUG: kernel NULL pointer dereference, address: 00000008
[    1.000001] #PF: supervisor read access in kernel mode
[    1.000002] Oops: 0000 [#1] PREEMPT SMP
[    1.000003] CPU: {cpu} PID: {pid} Comm: sh Not tainted 6.1.0-9-amd64 #1
[    1.000004] Hardware name: QEMU Standard PC (Q35 + ICH9, 2009), BIOS 1.16 04/01/2014
[    1.000005] RIP: 0010:frob_widget+0x{offset}/0x90
[    1.000006] Kernel panic - not syncing: Fatal exception
"""
    for number in range(3):
        text = log.format(cpu=number, pid=100 + number, offset=10 + number)
        (tmp_path / f"{number}.log").write_text(text)
    (tmp_path / "quiet.log").write_text("[    1.000000] Linux version 6.1.0-9-amd64\n")
    assert add(catalogue, f"{tmp_path}/*.log").failed == 0
    found = rows(catalogue, "source, signature, hardware, release, form")
    assert len({row[1] for row in found[:3]}) == 1
    assert "QEMU Standard PC" in found[0][2]
    assert found[0][3:] == ("6.1.0-9-amd64", "log")
    assert found[3][1] is None  # No death: it is in no group.
    (content,) = catalogue.ask(
        lambda it: it.rows("SELECT content FROM deaths WHERE source LIKE '%/1.log'")
    )[0]
    assert b"frob_widget" in catalogue.page(content)


def child(body: str, monkeypatch, tmp_path, seconds: float = 60) -> Child:
    """Return a child whose process runs *body* where it would examine a source."""
    (tmp_path / "sitecustomize.py").write_text(
        f"""
import sys
if "kmemdump.catalogue.examiner" in sys.orig_argv:
    import kmemdump.catalogue.examine as module
    def spoil():
        import contextlib, os, stat
        for fd in range(3, 20):
            with contextlib.suppress(OSError):  # None, or one that is only read.
                if stat.S_ISFIFO(os.fstat(fd).st_mode):
                    os.write(fd, b"x" * 100)
    def examine(source, host, content, identity, builds):
        import os, signal, time
        {body}
        from kmemdump.catalogue.problem import problem_row
        return problem_row(source, host, "done", content), None
    module.examine = examine
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Child(Limits(seconds=seconds), HOST)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("time.sleep(600 if 'bad' in source.name else 0)", "--max-time"),
        ("while 'bad' in source.name: pass", "--max-time|SIGXCPU"),
        ("'bad' in source.name and os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("'bad' in source.name and spoil()", "an examining process"),
        ("assert 'bad' not in source.name, 'oh'", "exit|ended"),
    ],
)
def test_a_source_that_hangs_or_kills(body, problem, tmp_path, monkeypatch):
    path = tmp_path / "bad"
    path.write_text("bad\n")
    (tmp_path / "good").write_text("good\n")
    start = time.monotonic()
    # Starting takes a while; the first source has a longer time.
    with child(body, monkeypatch, tmp_path, 2) as found:
        for name, expected in (("good", "done"), ("bad", problem), ("good", "done")):
            examined = found.examine(Source(str(tmp_path / name)))
            assert examined is not None
            assert re.search(expected, examined[0].problem), examined[0].problem
            assert not examined[0].content.startswith("unread")
    assert time.monotonic() - start < 300


@pytest.mark.parametrize("name", ["reference::evil.json", "http::x", "zip::a", "a::b"])
def test_a_file_is_no_url(name, tmp_path, monkeypatch):
    """A stranger's files have any name, and a shell's * is all of them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.json").write_text('{"a": "{{ b }}", "c": ["file:///etc/shadow"]}')
    (tmp_path / name).write_text("[    1.5] Kernel panic - not syncing: oh\n")
    assert main(["catalogue", "add", name, "--to", "place"]) == 0
    assert rows(Catalogue(Place("place"))) == [(str(tmp_path / name), None)]


def test_a_url_that_nothing_can_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.json").write_text(
        '{"version": 1, "templates": {"u": "{{c}}"}, "refs": {"b": ["{{ b }}"]}}'
    )
    command = ["catalogue", "add", "reference::evil.json", "--to", "place"]
    assert main(command) == ExitCode.UNREADABLE
    assert "error: reference::evil.json: " in capsys.readouterr().err


@pytest.mark.parametrize("forged", ["zz", "0" * 64])
def test_a_row_of_another_content_is_not_taken(forged, tmp_path, monkeypatch):
    """The process reads hostile memory: its rows replace none of other sources."""
    (tmp_path / "bad").write_text("bad\n")
    body = (
        "from dataclasses import replace; from kmemdump.catalogue import problem; "
        "row = problem.problem_row(source, host, 'done', content); "
        f"return replace(row, content={forged!r}), None"
    )
    with child(body, monkeypatch, tmp_path) as found:
        examined = found.examine(Source(str(tmp_path / "bad")))
    assert examined is not None
    assert examined[0].content == hashlib.sha256(b"bad\n").hexdigest()
    assert "the process that examined it: " in examined[0].problem


def test_a_line_of_events_without_end(tmp_path, capsys):
    path = tmp_path / "events"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    place = str(tmp_path / "place")
    status = main(["catalogue", "add", "--events", str(path), "--to", place])
    assert status == ExitCode.UNREADABLE
    assert "events, line 1: too long" in capsys.readouterr().err


def test_deaths_without_a_core_image_are_rows(tmp_path, capsys):
    core = write(tmp_path / "1.core")
    event = {"version": 2, "event": "death", "vm": "web1", "kind": "panic"}
    event |= {"text": "x", "time": "2026-11-28T10:00:00+00:00", "signature": "panic: a"}
    lines = [
        {**event, "core": str(core)},
        {**event, "cause": "panic: a"},
        {**event, "cause": "panic: a"},
        {**event, "event": "marked"},
    ]
    path = tmp_path / "events"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    place = str(tmp_path / "place")
    main(["catalogue", "add", "--events", str(path), "--to", place, "--json"])
    assert json.loads(capsys.readouterr().out)["added"] == 2
    found = rows(Catalogue(Place(place)), "source, machine, signature")
    assert found[1] == ("watch of web1", "web1", "panic: a")
    path.write_text("no event\n")
    status = main(["catalogue", "add", "--events", str(path), "--to", place])
    assert status == ExitCode.UNREADABLE
    assert "events, line 1" in capsys.readouterr().err


# Questions


@pytest.fixture
def place(catalogue) -> str:
    catalogue.add([made_row(number) for number in range(5)])
    other = {"signature": "hang in spin", "kind": "hang", "release": "6.1.5"}
    catalogue.add([made_row(n, **other, machine="db") for n in range(100, 102)])
    catalogue.add([made_row(200, kind=None, signature=None, problem="cut short")])
    return catalogue.place.url


def listed(capsys, *words: str) -> list[tuple[str, int]]:
    assert main(["catalogue", *words, "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["groups"]
    return [(group["signature"], group["deaths"]) for group in groups]


def test_list(place, capsys):
    oops, hang = ("oops in ext4_put < vfs_close", 5), ("hang in spin", 2)
    ask = ("list", "--from", place)
    assert listed(capsys, *ask) == [oops, hang]
    assert listed(capsys, *ask, "--kernel", "6.1.*") == [hang]
    assert listed(capsys, *ask, "--machine", "vm[12]") == [(oops[0], 2)]
    assert listed(capsys, *ask, "--until", "2026-11-01T02:00") == [(oops[0], 2)]
    assert listed(capsys, *ask, "--limit", "1") == [oops]
    assert listed(capsys, "new", "--since", "2026-11-03", "--from", place) == [hang]
    assert main(["catalogue", *ask]) == 0
    said = capsys.readouterr()
    assert "oops in ext4_put < vfs_close" in said.out
    assert "1 sources have no report" in said.err


def test_show_and_sql(place, capsys):
    assert main(["catalogue", "list", "--from", place]) == 0
    name = capsys.readouterr().out.splitlines()[2].split()[0]
    assert main(["catalogue", "show", name[:6], "--from", place]) == 0
    said = capsys.readouterr().out
    assert "hang in spin" in said
    assert "kernels: 6.1.5 (2)" in said
    assert "machines: db (2)" in said
    assert main(["catalogue", "show", "nosuch", "--from", place]) == ExitCode.USAGE
    query = "SELECT kind, count(*) AS n FROM deaths GROUP BY ALL ORDER BY n"
    assert main(["catalogue", "sql", query, "--from", place]) == 0
    assert capsys.readouterr().out == "kind,n\n,1\nhang,2\noops,5\n"
    wrong = ["catalogue", "sql", "SELECT nosuch FROM deaths", "--from", place]
    assert main(wrong) == ExitCode.USAGE


def test_options_from_a_file(place, capsys, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(f"[catalogue]\nfrom = '{place}'\nlimit = 1\n")
    assert main(["catalogue", "--config", str(config), "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["groups"]) == 1


def test_help_loads_no_engine():
    script = (
        "import sys; from kmemdump.cli import main; main(['catalogue', 'add', '-h']); "
        "sys.exit(bool({'pyarrow', 'duckdb', 'distributed', 'fsspec', 'drgn'} "
        "& sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "kmemdump.catalogue.store", None)
    status = main(["catalogue", "list", "--from", str(tmp_path)])
    assert status == ExitCode.UNREADABLE
    assert "pip install" in capsys.readouterr().err


def test_a_path_that_is_not_there_is_no_row(tmp_path, capsys):
    place, gone = str(tmp_path / "all"), f"{tmp_path}/gone\udcff.core"
    assert main(["catalogue", "add", gone, "--to", place]) == 3
    assert "No such file" in capsys.readouterr().err
    assert not os.path.exists(place)
    core = write(tmp_path / "1.core")
    assert main(["catalogue", "add", gone, str(core), "--to", place]) == 1
    assert "1 added" in capsys.readouterr().out


def test_sql_that_asks_nothing(tmp_path, capsys):
    place = str(tmp_path / "all")
    main(["catalogue", "add", str(write(tmp_path / "1.core")), "--to", place])
    for text in ("", ";", "  "):
        assert main(["catalogue", "sql", text, "--from", place]) == 2
        assert "nothing is asked" in capsys.readouterr().err


def test_a_death_whose_core_image_is_gone_keeps_its_facts(tmp_path, capsys):
    event = {"version": 2, "event": "death", "vm": "web1", "kind": "panic"}
    event |= {"text": "x", "time": "2026-11-28T10:00:00+00:00", "signature": "panic: a"}
    path, place = tmp_path / "events", str(tmp_path / "place")
    path.write_text(json.dumps(event | {"core": str(tmp_path / "gone.core")}) + "\n")
    main(["catalogue", "add", "--events", str(path), "--to", place, "--json"])
    assert json.loads(capsys.readouterr().out)["added"] == 1
    found = rows(Catalogue(Place(place)), "machine, signature, problem")
    assert found == [("web1", "panic: a", "its core image is gone")]


def test_a_death_is_not_counted_again_when_its_core_image_is_gone(tmp_path, capsys):
    """Events are a file that grows, and is added again and again."""
    core = write(tmp_path / "1.core")
    event = {"version": 2, "event": "death", "vm": "web1", "kind": "panic"}
    event |= {"text": "x", "time": "2026-11-28T10:00:00+00:00", "signature": "panic: a"}
    path, place = tmp_path / "events", str(tmp_path / "place")
    path.write_text(json.dumps(event | {"core": str(core)}) + "\n")
    add = ["catalogue", "add", "--events", str(path), "--to", place]
    assert main(add) in (0, 1)
    core.unlink()
    assert main(add) == 0
    assert len(rows(Catalogue(Place(place)))) == 1


def test_times_that_no_calendar_has(tmp_path, capsys):
    """A file system keeps them; one such file must not stop a whole folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    first, second = write(folder / "1.core"), folder / "2.log"
    second.write_text("[    1.000000] Kernel panic - not syncing: x\n")
    os.utime(first, (300_000_000_000, 300_000_000_000))  # The year 11476.
    os.utime(second, (253_402_214_400, 253_402_214_400))  # The last day of 9999.
    place = str(tmp_path / "all")
    assert main(["catalogue", "add", str(folder), "--to", place]) in (0, 1)
    site = str(tmp_path / "site")
    assert main(["catalogue", "page", "--from", place, "-o", site]) == 0
    seen = rows(Catalogue(Place(place)), "seen <= added")
    assert seen == [(True,), (True,)]
