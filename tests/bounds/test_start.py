# SPDX-License-Identifier: GPL-2.0-or-later
"""What is started in a stranger's folder runs no code of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kmemdump
from rigs.small_core import write

pytestmark = pytest.mark.slow

MODULES = ("multiprocessing", "socket", "json", "click", "drgn", "kmemdump")
"""Each is loaded by one of the processes below, or by several."""
EVIL = """
import os
os.close(os.open({ran!r}, os.O_CREAT | os.O_WRONLY))
raise ImportError("of a stranger")
"""
WORK = """
import multiprocessing
import os
import sys

from kmemdump import run_bounded
from kmemdump.__main__ import run
from kmemdump.bounds.start import start_process

KIND, *ARGUMENTS = sys.argv[1:]

if __name__ == "__main__":
    if KIND == "verb":
        sys.argv[1:] = ARGUMENTS
        run()
    elif KIND == "bounded":
        print(run_bounded(os.getcwd))
    else:
        process = multiprocessing.get_context(KIND).Process(target=print, args=("ran",))
        start_process(process)
        process.join()
        sys.exit(process.exitcode)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("spawn",),
        ("forkserver",),
        ("bounded",),
        ("verb", "info", "core"),
        ("verb", "catalogue", "add", "core", "--to", "../deaths"),
    ],
    ids=" ".join,
)
def test_no_module_of_the_current_folder_is_loaded(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    folder, ran = tmp_path / "stranger", tmp_path / "ran"
    folder.mkdir()
    write(folder / "core")
    for name in MODULES:
        (folder / f"{name}.py").write_text(EVIL.format(ran=str(ran)))
    # As the console script is: its own folder is on the path, and not the current one.
    script = tmp_path / "script.py"
    script.write_text(WORK)
    environ = {**os.environ, "PYTHONPATH": str(Path(kmemdump.__file__).parents[1])}
    environ.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert not ran.exists(), done.stderr
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr


def test_there_is_no_other_way() -> None:
    """Python, and processes of multiprocessing, are started by bounds/start.py."""
    package = Path(kmemdump.__file__).parent
    starts = re.compile(r"process\.start\(\)|sys\.executable,\s*\"-")
    found = [path for path in package.rglob("*.py") if starts.search(path.read_text())]
    assert [str(path.relative_to(package)) for path in found] == ["bounds/start.py"]
