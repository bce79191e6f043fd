# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs and compilers of other releases of Debian."""

import platform
import shutil
import subprocess
import sys

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.lab import PackageCache, get_architecture, older_compiler
from kmemdump.lab.other_programs import loader, unpack_libraries, wrap_programs
from kmemdump.lab.shared_libraries import libraries
from rigs.fake_archive import FakeArchive

HERE = get_architecture(platform.machine())
TRIPLET = HERE.compiler.rstrip("-")


def test_libraries_of_libraries(tmp_path, monkeypatch):
    archive = FakeArchive(tmp_path / "archive")
    monkeypatch.setenv("PATH", f"{tmp_path}/archive/bin:/usr/bin:/bin")
    depends = "pahole, libelf1t64 (>= 0.144) | libelf1, zlib1g:any"
    archive.add("sid", "libelf1t64", depends="libc6, gcc-14-base", files={"a": "elf"})
    archive.add("sid", "zlib1g", depends="libc6 (>= 2.38)", files={"b": "zlib"})
    archive.add("sid", "libc6", depends="libelf1t64", files={"usr/lib/c": "libc"})
    apt = PackageCache(tmp_path / "lab").apt(HERE, "sid")
    folder = tmp_path / "libraries"
    folder.mkdir()
    unpack_libraries(depends, apt, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "lib", "usr"]
    assert (folder / "lib/c").read_text() == "libc"


def test_no_loader(tmp_path):
    with pytest.raises(UnsupportedError, match="hold no loader; remove it"):
        loader(tmp_path, HERE)


@pytest.fixture
def wanting(tmp_path):
    """A folder with a program whose library this machine lacks, and others."""
    gcc = f"{HERE.compiler}gcc"
    if shutil.which(gcc) is None:
        pytest.skip(f"install {HERE.compiler_package}")
    programs, folder = tmp_path / "tree/programs/tools", tmp_path / "tree/libraries"
    place = folder / "usr/lib" / TRIPLET
    for path in (programs, place):
        path.mkdir(parents=True)
    (tmp_path / "lib.c").write_text("int answer(void) { return 42; }\n")
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\nint answer(void);\n"
        'int main(int c, char **v) { printf("%d %s\\n", answer(), v[1]); }\n'
    )
    library = place / "libwanting.so"
    build = (gcc, "-shared", "-o", library, tmp_path / "lib.c")
    subprocess.run(build, check=True)
    program = programs / "ask"
    subprocess.run((gcc, "-o", program, tmp_path / "main.c", library), check=True)
    plain = library.with_name("moved.so")
    for path in libraries([program]):
        if path.name != library.name:
            shutil.copy(path, place)
    # The program names its library by a path that will not exist.
    subprocess.run(
        (gcc, "-o", program, tmp_path / "main.c", f"-L{place}", "-lwanting"), check=True
    )
    plain.write_text("no program")
    (programs / "script").write_text("#!/bin/sh\necho script\n")
    shutil.copy("/bin/true", programs / "true")
    return tmp_path / "tree"


def test_a_program_that_lacks_its_libraries(wanting, tmp_path):
    before = (wanting / "programs/tools/true").read_bytes()
    wrap_programs(wanting / "programs", wanting / "libraries", HERE)
    moved = wanting.rename(tmp_path / "another place")
    tools = moved / "programs/tools"
    said = subprocess.run([tools / "ask", "a b"], capture_output=True, text=True)
    assert said.stdout == "42 a b\n", said.stderr
    # What runs already stays.
    assert (tools / "true").read_bytes() == before
    assert (tools / "script").read_text() == "#!/bin/sh\necho script\n"


def test_an_option_that_a_compiler_does_not_know(tmp_path, capfd):
    gcc = f"{HERE.compiler}gcc"
    if shutil.which(gcc) is None:
        pytest.skip(f"install {HERE.compiler_package}")
    source = tmp_path / "a.c"
    source.write_text("int a;\n")
    made = tmp_path / "a.o"
    argv = [gcc, "-fno-such-option=16", "-mno-such", "-c", str(source), "-o", str(made)]
    assert older_compiler.main(argv) == 0
    assert made.exists()
    assert capfd.readouterr().err == ""
    source.write_text("an error\n")
    assert older_compiler.main(argv) == 1
    assert "a.c:1" in capfd.readouterr().err
    program = [sys.executable, older_compiler.__file__, gcc, "--version"]
    assert "gcc" in subprocess.run(program, capture_output=True, text=True).stdout
