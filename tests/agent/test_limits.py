# SPDX-License-Identifier: GPL-2.0-or-later
"""A look that never ends ends its agent, and the next agent leaves it out."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# "forever" is work in C, which no budget and no handler of Python's ends.
SCRIPT = """
import sys
from pathlib import Path
from kmemdump.agent.limits import limit_looks
from kmemdump.bounds import steps
from kmemdump.errors import BudgetExceededError

def put(what, work):
    try:
        with steps.step(what, 1.0, 10.0):
            work()
        print(what, "done", flush=True)
    except BudgetExceededError as error:
        print(f"{what}: {error}", flush=True)

steps._MARGIN = 0
limit_looks(Path(sys.argv[1]) if len(sys.argv) > 1 else None, "table")
put("before", lambda: None)
put("bomb", lambda: sum(range(1 << 60)))
put("after", lambda: None)
"""


ENDED = (-signal.SIGXCPU, -signal.SIGALRM)
"""Whichever limit of a step is reached first: that of CPU time, or on a busy host."""


def run(*arguments: Path) -> tuple[int, list[str]]:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout.splitlines()


def test_the_next_agent_leaves_out_what_ended_the_last_one(tmp_path: Path) -> None:
    left_out = "bomb: left out: the agent that did it was ended"
    status, lines = run(tmp_path)
    assert (status in ENDED, lines) == (True, ["before done"])
    for _ in range(2):  # Also the one after the next.
        assert run(tmp_path) == (0, ["before done", left_out, "after done"])
    assert (tmp_path / "table.step").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("until", [-1.0, 1e9], ids=["long ago", "another boot"])
def test_it_is_forgotten(tmp_path: Path, until: float) -> None:
    refused = {"bomb": time.monotonic() + until}
    (tmp_path / "table.refused").write_text(json.dumps(refused))
    status, lines = run(tmp_path)
    assert (status in ENDED, lines) == (True, ["before done"])


def test_limits_need_no_folder() -> None:
    status, lines = run()
    assert (status in ENDED, lines) == (True, ["before done"])
