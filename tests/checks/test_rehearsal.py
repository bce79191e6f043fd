# SPDX-License-Identifier: GPL-2.0-or-later
"""What is written for a rehearsal is sealed where that of a death would be."""

import os
import signal
import time
from pathlib import Path

import pytest

from kmemdump.checks.point import Rehearsal
from kmemdump.checks.rehearsal import Written, rehearse
from kmemdump.checks.wanted import Wanted
from kmemdump.errors import FormatError
from kmemdump.marking.selection import select
from kmemdump.opening import open_target
from kmemdump.sealing import Seal, make_seal
from rigs.keys import Key, age_key
from rigs.small_core import PAGE, write


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return age_key(tmp_path)


def rehearsed(folder: Path, seal: Seal | None):
    """Return the point about the core image, and what was on the disk."""
    wanted = Wanted(select(), seal=seal)
    written: list[bytes] = []

    def write_it(path: Path, reader: str | None) -> Written:
        write(path, seal=wanted.seal_for(reader))
        written.append(path.read_bytes())
        return Written(Rehearsal(len(written[0]), 0.1, 0.1), 0, None)

    folder.mkdir(exist_ok=True)
    found = rehearse(write_it, folder)
    assert list(folder.iterdir()) == []
    assert found.inspection is not None
    assert [it.name for it in found.inspection.areas] == ["kmsg", "crash"]
    return found.points[-1].text, written[0]


def test_it_is_sealed_and_read_again(key, tmp_path):
    text, written = rehearsed(tmp_path / "cores", make_seal([key.public]))
    assert text.startswith(f"{len(written) / 1e3:.1f} kB in 0.10 s (sealed)")
    assert bytes([1]) * PAGE not in written
    copy = tmp_path / "copy"
    copy.write_bytes(written)
    open_target(str(copy), identity=key.file).close()
    with pytest.raises(FormatError, match="sealed for other keys"):
        open_target(str(copy), identity=age_key(tmp_path, "other").file)


def test_without_a_seal_it_is_not(tmp_path):
    text, written = rehearsed(tmp_path / "cores", None)
    assert "sealed" not in text
    assert bytes([1]) * PAGE in written


def test_what_a_killed_one_left_goes_with_the_next(tmp_path):
    """It is ended when its time is up; each day's would stay in the folder."""
    cores = tmp_path / "cores"
    cores.mkdir()

    def write_it(path: Path, _reader: str | None) -> Written:
        write(path)
        # By itself: another process would hold the folder's lock a moment longer.
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    if (child := os.fork()) == 0:
        rehearse(write_it, cores)
        os._exit(1)
    os.waitpid(child, 0)
    (left,) = cores.iterdir()
    hour_ago = time.time() - 3600
    os.utime(left, (hour_ago, hour_ago))
    rehearsed(cores, None)
