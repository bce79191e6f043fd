# SPDX-License-Identifier: GPL-2.0-or-later
"""What drgn only warns of makes an answer incomplete."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from drgn import Program

from kmemdump.errors import IncompleteAnswerError
from kmemdump.questions.question import Question, answer, attempt, explain

logger = logging.getLogger("drgn")

_SCRIPT = """\
import logging, os, sys
import drgn
import kmemdump.kernel.drgn_warnings

logging.basicConfig(level=logging.DEBUG, format="%(message)s", stream=sys.stdout)
prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
module = prog.extra_module("vmlinux", create=True)
try:
    module.try_file(os.fsdecode(sys.argv[1]))
except FileNotFoundError:
    pass
"""


def asked(put, text="test"):
    return attempt(Program(), Question(text, put))


def warn(*texts):
    def put(prog):
        print("what there is")
        for text in texts:
            logger.warning("couldn't get %s", text)

    return put


def test_a_warning_makes_an_answer_incomplete(caplog):
    text, error = asked(warn("DATE", "UPTIME"))
    assert text == "what there is\n"
    assert isinstance(error, IncompleteAnswerError)
    assert explain(error) == "couldn't get DATE; couldn't get UPTIME"
    assert caplog.records == []  # Told once.


def test_an_answer_without_a_warning_is_whole(caplog):
    assert asked(lambda prog: logger.info("something else")) == ("", None)
    with pytest.raises(IncompleteAnswerError):
        answer(Program(), Question("test", warn("DATE")))
    logger.warning("after it")
    assert [record.getMessage() for record in caplog.records] == ["after it"]


def test_each_warning_counts_once_and_there_is_a_limit():
    _, error = asked(warn(*["DATE"] * 5))
    assert explain(error) == "couldn't get DATE"
    _, error = asked(warn(*map(str, range(1000))))
    assert explain(error).count("couldn't") == 20


def test_a_warning_is_one_line():
    _, error = asked(warn("DATE:\n  no such thing"))
    assert explain(error) == "couldn't get DATE: no such thing"


def test_an_error_comes_first():
    def put(prog):
        logger.warning("couldn't get DATE")
        raise LookupError("could not find 'x'")

    _, error = asked(put)
    assert explain(error) == "could not find 'x' (couldn't get DATE)"


def test_a_doubt_is_not_a_gap(caplog):
    """A clock that was being updated is a tick behind at most."""
    doubt = "timekeeper was write-locked; ktime may be inconsistent"
    assert asked(lambda prog: logger.warning(doubt)) == ("", None)
    assert [record.getMessage() for record in caplog.records] == [doubt]


def test_threads_that_ask_at_the_same_time(caplog):
    meet = threading.Barrier(4)
    found = {}

    def ask(name):
        def put(prog):
            meet.wait()
            for _ in range(100):
                logger.warning("couldn't get %s", name)
            meet.wait()

        found[name] = asked(put)[1]

    def only_log():
        meet.wait()
        logger.warning("of nobody's question")
        meet.wait()

    threads = [threading.Thread(target=ask, args=(name,)) for name in "ABC"]
    threads.append(threading.Thread(target=only_log))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: explain(error) for name, error in found.items()} == {
        name: f"couldn't get {name}" for name in "ABC"
    }
    assert [it.getMessage() for it in caplog.records] == ["of nobody's question"]


def test_message_that_is_no_text_is_logged(tmp_path: Path) -> None:
    """drgn's messages have names in them as they are in memory, or in a folder."""
    path = bytes(tmp_path / "vm") + b"\xfflinux"
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT, path], capture_output=True, check=True
    )
    assert f"{tmp_path}/vm\ufffdlinux" in run.stdout.decode()
    assert run.stderr == b""


def test_other_exceptions_that_nobody_catches_are_still_reported() -> None:
    script = _SCRIPT.partition("prog =")[0] + (
        "class Late:\n    def __del__(self):\n        b'\\xff'.decode()\nLate()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "UnicodeDecodeError" in run.stderr
