# SPDX-License-Identifier: GPL-2.0-or-later
"""The verb ``open``, and how it finds a vmlinux; VMs: tests/test_answers.py."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.cli.shared.messages import print_message
from kmemdump.errors import TargetError
from kmemdump.kernel.attach import debug_file_build_id
from kmemdump.kernel.vmlinux_search import find_vmlinux
from rigs.small_core import BUILD_ID, write
from rigs.synthetic import lime, vmcoreinfo, vmcoreinfo_note

RELEASE = "6.1.0-test"
# Any ELF file with a build id does, as long as nobody reads more of it.
ELF = Path(sys.executable).resolve()


@pytest.fixture
def core(tmp_path: Path) -> Path:
    return write(tmp_path / "a core")


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    shutil.copy(ELF, path)
    return path


def command_line(capsys, *arguments: str | Path) -> list[str]:
    assert main(["open", "--print", *map(str, arguments)]) == 0
    return shlex.split(capsys.readouterr().out)


# Command lines


def test_drgn_needs_nothing_else(core, capsys):
    argv = command_line(capsys, core)
    assert Path(argv[0]).name == "drgn"
    assert argv[1:] == ["-c", str(core)]


def test_arguments_are_passed_on(core, capsys):
    argv = command_line(capsys, core, "--with", "drgn", "--", "-q", "-e", "print(1)")
    assert argv[3:] == ["-q", "-e", "print(1)"]


def test_drgn_of_what_is_not_self_contained(tmp_path, capsys):
    path = write(tmp_path / "core", packed=False)
    assert main(["open", str(path)]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"kmemdump: error: no vmlinux of kernel {RELEASE}, build id ")
    assert "name it with --vmlinux FILE" in err


def test_another_kernels_vmlinux(core, capsys):
    assert main(["open", str(core), "--with", "gdb", "--vmlinux", str(ELF)]) == 2
    assert f"build id {BUILD_ID}" in capsys.readouterr().err


def test_gdb(core, capsys, monkeypatch):
    monkeypatch.setattr(
        "kmemdump.kernel.vmlinux_search.find_vmlinux", lambda *args: ELF
    )
    argv = command_line(capsys, core, "--with", "gdb")
    assert f"symbol-file -o 0x13c00000 {ELF}" in argv
    assert argv[argv.index("-c") + 1] == str(core)
    assert argv[-1].startswith("source ")
    assert Path(argv[-1].removeprefix("source ")).is_file()


gdb_needed = pytest.mark.skipif(shutil.which("gdb") is None, reason="no gdb here")


@gdb_needed
def test_gdb_runs_nothing_of_a_strangers_folder(core, capsys, monkeypatch, tmp_path):
    """Not even if auto-load is allowed everywhere, as kernel developers have it."""
    monkeypatch.setattr(
        "kmemdump.kernel.vmlinux_search.find_vmlinux", lambda *args: vmlinux
    )
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    (home / ".gdbinit").write_text("set auto-load safe-path /\n")
    vmlinux = folder / "vmlinux"
    shutil.copy("/bin/true", vmlinux)
    for name in (".gdbinit", "vmlinux-gdb.gdb"):
        (folder / name).write_text("shell touch run\n")
    script = "import os; os.system('touch run')\n"
    (folder / "vmlinux-gdb.py").write_text(script)
    argv = command_line(capsys, core, "--with", "gdb", "--", "-batch")
    argv += ["-ex", "info files"]
    monkeypatch.setenv("HOME", str(home))
    free = ["gdb", "-q", "-batch", "-ex", f"symbol-file {vmlinux}"]
    subprocess.run(free, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL)
    assert (folder / "run").exists()  # What gdb does by itself.
    (folder / "run").unlink()
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert f'Symbols from "{vmlinux}"' in done.stdout
    assert not (folder / "run").exists()


def test_crash_reads_no_crashrc(core, capsys, monkeypatch):
    monkeypatch.setattr(
        "kmemdump.kernel.vmlinux_search.find_vmlinux", lambda *args: ELF
    )
    argv = command_line(capsys, core, "--with", "crash")
    assert argv[:2] == ["crash", "--no_crashrc"]


@pytest.mark.parametrize("release", ["{}/evil", "../../{}/evil", "x/.."])
@pytest.mark.parametrize("debugger", ["drgn", "gdb", "crash"])
def test_a_release_is_no_path(tmp_path, capsys, release, debugger):
    """Of a stranger's core image, which names its own build id, too."""
    put(tmp_path / "evil" / "vmlinux")
    name = release.format(str(tmp_path)[:50])
    core = write(tmp_path / "core", release=name)
    assert main(["open", "--print", str(core), "--with", debugger]) == 3
    assert "expected a release without a slash" in capsys.readouterr().err
    with pytest.raises(TargetError, match="no vmlinux of kernel"):
        find_vmlinux(str(tmp_path / "evil"), None, {})


def test_a_long_release_is_cut(tmp_path, capsys):
    core = write(tmp_path / "core", release="6" * 70_000, packed=False)
    assert main(["open", "--print", str(core)]) == 3
    err = capsys.readouterr().err
    assert "6" * 64 in err
    assert "6" * 65 not in err


def test_a_long_message_is_cut(capsys):
    print_message(f"begin {'x' * 70_000} end")
    err = capsys.readouterr().err
    assert len(err) < 4100
    assert err.startswith("kmemdump: begin xxx")
    assert err.endswith("xxx end\n")


def test_json(tmp_path, capsys, monkeypatch):
    core = write(tmp_path / "a core", areas=["kmsg"], release="6.0.0-test")
    assert main(["open", str(core), "--json", "--", "-q"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["argv"] == [*command_line(capsys, core), "-q"]
    del told["argv"]
    assert told == {"version": 1, "debugger": "drgn", "vmlinux": None, "notes": []}
    monkeypatch.setattr(
        "kmemdump.kernel.vmlinux_search.find_vmlinux", lambda *args: ELF
    )
    assert main(["open", str(core), "--with", "crash", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["argv"] == ["crash", "--no_crashrc", str(ELF), str(core)]
    assert told["vmlinux"] == str(ELF)
    assert told["notes"] == ["may not start: area crash was not marked"]
    assert err == ""


def test_what_cannot_be_opened(tmp_path, core, capsys):
    assert main(["open", "qmp:/run/a vm.qmp"]) == 2
    err = capsys.readouterr().err
    assert "first: kmemdump capture 'qmp:/run/a vm.qmp' -o CORE" in err
    assert main(["open", "live"]) == 2
    path = tmp_path / "noise"
    path.write_bytes(b"noise" * 999)
    assert main(["open", str(path)]) == 3
    assert main(["open", str(core), "--with", "kgdb"]) == 2


@pytest.mark.parametrize("debugger", ["drgn", "crash", "gdb"])
def test_what_only_we_open(debugger, tmp_path, capsys):
    """No debugger is started that would refuse the file in its own words."""
    path = tmp_path / "vm.lime"
    path.write_bytes(lime([(0x1000, vmcoreinfo_note(vmcoreinfo()))]))
    assert main(["open", str(path), "--with", debugger, "--vmlinux", str(ELF)]) == 3
    err = capsys.readouterr().err
    assert f"{path}: {debugger} cannot open it: it only opens ELF cores" in err
    assert f"first: kmemdump capture {path} -o CORE" in err
    main(["info", str(path)])
    assert f"not {debugger}: it only opens ELF cores" in capsys.readouterr().out


def test_a_debugger_that_is_not_installed(core, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        "kmemdump.kernel.vmlinux_search.find_vmlinux", lambda *args: ELF
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["open", str(core), "--with", "crash"]) == 3
    err = capsys.readouterr().err
    assert "crash is not installed; install it: apt install crash" in err


# The vmlinux


@pytest.fixture(scope="module")
def build_id() -> str:
    found = debug_file_build_id(ELF)
    assert found is not None
    return found


PLACES = (
    "usr/lib/debug/boot/vmlinux-6.1.0-test",
    "usr/lib/debug/lib/modules/6.1.0-test/vmlinux",
    "usr/lib/debug/usr/lib/modules/6.1.0-test/vmlinux",
    "lib/modules/6.1.0-test/build/vmlinux",
)


@pytest.mark.parametrize("place", PLACES)
def test_usual_places(tmp_path, build_id, place):
    path = put(tmp_path / place)
    assert find_vmlinux(RELEASE, build_id, {}, root=tmp_path) == path
    assert find_vmlinux(RELEASE, None, {}, root=tmp_path) == path


def test_place_by_build_id(tmp_path, build_id):
    folder = tmp_path / "usr/lib/debug/.build-id" / build_id[:2]
    path = put(folder / f"{build_id[2:]}.debug")
    assert find_vmlinux(RELEASE, build_id, {}, root=tmp_path) == path


def test_another_build(tmp_path, build_id):
    path = put(tmp_path / PLACES[0])
    with pytest.raises(TargetError, match=rf"\({path}: another build's\)"):
        find_vmlinux(RELEASE, "ab" * 20, {}, root=tmp_path)
    right = put(tmp_path / PLACES[1])
    path.write_bytes(b"no ELF file at all")
    assert find_vmlinux(RELEASE, build_id, {}, root=tmp_path) == right


@pytest.fixture
def server(tmp_path: Path, build_id: str) -> Iterator[str]:
    """What debuginfod's client takes for a server: it is asked for files by HTTP."""
    put(tmp_path / "served/buildid" / build_id / "debuginfo")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.mark.skipif(
    shutil.which("debuginfod-find") is None,
    reason="needs debuginfod; 'make test' installs it",
)
def test_debuginfod(tmp_path, build_id, server):
    cache = str(tmp_path / "cache")
    environ = {
        **{key: value for key, value in os.environ.items() if "proxy" not in key},
        "DEBUGINFOD_URLS": server,
        "DEBUGINFOD_CACHE_PATH": cache,
    }
    root = tmp_path / "root"
    found = find_vmlinux(RELEASE, build_id, environ, root=root)
    assert str(found).startswith(cache)
    assert debug_file_build_id(found) == build_id
    with pytest.raises(TargetError, match="nor by debuginfod: "):
        find_vmlinux(RELEASE, "ab" * 20, environ, root=root)
    # Nobody is asked whom the user did not name.
    del environ["DEBUGINFOD_URLS"]
    with pytest.raises(TargetError) as caught:
        find_vmlinux(RELEASE, build_id, environ, root=root)
    assert "nor by debuginfod" not in str(caught.value)
    assert "download it: DEBUGINFOD_URLS=https://" in str(caught.value)


def test_debuginfod_is_not_installed(build_id, tmp_path):
    environ = {"DEBUGINFOD_URLS": "http://127.0.0.1:9", "PATH": str(tmp_path)}
    with pytest.raises(TargetError, match="debuginfod-find is not installed"):
        find_vmlinux(RELEASE, build_id, environ, root=tmp_path)


# gdb without a kernel


@pytest.mark.skipif(shutil.which("gdb") is None, reason="needs gdb")
def test_gdb_takes_the_commands(core):
    argv = ["gdb", "-nx", "-batch"]
    script = Path(command_script())
    said = subprocess.run(
        [*argv, "-ex", f"source {script}", "-ex", "help log", "-ex", "help tasks"],
        capture_output=True,
        text=True,
    )
    assert "Print the kernel log." in said.stdout, said.stderr
    assert "Print all tasks" in said.stdout


def command_script() -> str:
    import kmemdump.debuggers

    return str(Path(kmemdump.debuggers.__file__).with_name("gdb_commands.py"))
