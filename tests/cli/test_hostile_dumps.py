# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever a dump holds, collecting it ends with a core image or one clear line."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmemdump.cli import main
from kmemdump.cli.ask import _print as print_answer
from rigs.dead_phone import leave

SOURCES = ("dump", "rawdump.img", "ram.img", "kinfo.img", "kinfo.bin")
RAM = ("--memory-map", "0x80000000")
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("left")
    leave(folder)
    return folder


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Change some bytes that mean something, or cut the file."""
    damaged = bytearray(content)
    places = [i for i, byte in enumerate(content[:0x6000]) if byte] or [0]
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.sampled_from(places)) + data.draw(st.integers(-3, 3))
        if 0 <= at < len(damaged):
            damaged[at] = data.draw(st.sampled_from(INTERESTING))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged))) :]
    return bytes(damaged)


def spoil(data: st.DataObject, left: Path, source: str, folder: Path) -> Path:
    """Return a damaged copy of one of the leftovers."""
    path = folder / source
    if not (left / source).is_dir():
        path.write_bytes(damage(data, (left / source).read_bytes()))
        return path
    path.mkdir()
    for file in sorted((left / source).iterdir()):
        what = data.draw(st.sampled_from(("keep",) * 5 + ("damage", "leave out")))
        content = file.read_bytes()
        if what == "damage":
            content = damage(data, content)
        if what != "leave out":
            (path / file.name).write_bytes(content)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
@settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_damage(
    left: Path, capsys: pytest.CaptureFixture[str], source: str, data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = spoil(data, left, source, folder)
        core = folder / "core"
        memory = RAM if source.startswith(("ram", "kinfo.img")) else ()
        status = main(["collect", str(path), "-o", str(core), *memory])
        said = capsys.readouterr()
        assert status in (0, 1, 3), said.err
        assert core.exists() == (status != 3)
        assert (status == 0) == (said.err == "")
        assert sorted(os.listdir(folder)) == sorted(
            [source, *(["core"] if status != 3 else [])]
        )
        assert main(["regions", str(path), *memory]) in (0, 1, 3)
        if status != 3:
            assert main(["info", str(core)]) in (0, 1)
            assert main(["ask", str(core), "log"]) in (0, 1, 3)
        assert main(["ask", str(path), "ramoops", *memory]) in (0, 1, 3)
        capsys.readouterr()


@pytest.mark.parametrize(
    "name", ["md_\x1b[31m.BIN", "md_\0.BIN", f"md_{'a' * 300}.BIN"]
)
def test_names_that_no_file_should_have(
    tmp_path: Path, left: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A list may name them; nothing of them gets at a terminal."""
    folder = tmp_path / "dump"
    shutil.copytree(left / "dump", folder)
    with (folder / "dump_info.txt").open("a") as file:
        file.write(f"1 0x{0x90000000:016x}\t{64:016d}\t{name:>20}\t{name}\r\n")
    core = tmp_path / "core"
    assert main(["collect", str(folder), "-o", str(core)]) == 1
    said = capsys.readouterr()
    assert "is in the list of files and not in the folder" in said.err
    assert main(["regions", str(folder)]) in (0, 1)
    assert main(["info", str(core)]) in (0, 1)
    said += capsys.readouterr()
    for text in said:
        assert text.replace("\n", "").isprintable()


def test_file_with_a_name_that_a_terminal_obeys(
    tmp_path: Path, left: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dump"
    shutil.copytree(left / "dump", folder)
    (folder / "md_\x1b[31m.BIN").write_bytes(b"red")
    main(["collect", str(folder), "-o", str(tmp_path / "core")])
    assert r"\x1b[31m (3 bytes) is left out" in capsys.readouterr().err


def test_answers_do_not_control_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What a damaged or hostile kernel logged is shown, and not obeyed."""
    answer = "a\tb\x07\n\x1b[2Jc\u202e\n"
    print_answer({"question": "log", "answer": answer, "error": None})
    assert capsys.readouterr().out == "a\tb\\x07\n\\x1b[2Jc\\u202e\n"
