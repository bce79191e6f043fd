# SPDX-License-Identifier: GPL-2.0-or-later
"""
Try the kernels that are Debian's newest today, and print what the tests found.

A program: ``make newest``. Each kernel boots, panics and hangs; all questions are put
to it; its variables are compared with its debug file; and it is reported on, watched,
and opened by other debuggers. The exit status is 1 if a test failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rigs.scenarios import KERNELS
from rigs.support import Results, table

NEWEST = ("newest", "sid-newest")
TESTS = (
    "cli/test_report.py",
    "kernel/test_printk.py",
    "kernel/test_variables.py",
    "test_answers.py",
    "watch/test_each_kernel.py",
)
"""Files with tests of kernels, in this folder."""
RESULTS = Path("build/newest.json")


def main(arguments: Sequence[str]) -> int:
    RESULTS.unlink(missing_ok=True)
    files = [str(Path(__file__).parent / name) for name in TESTS]
    chosen = [word for name in NEWEST for word in ("--kernel", name)]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "basic", *chosen]
    ended = subprocess.run([*command, "--results", str(RESULTS), *files, *arguments])
    results: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for architecture, kernels in KERNELS.items():
        tried = [name for name in kernels if f"{architecture.name} {name}" in results]
        print(f"\n{architecture.name}:\n\n{table(results, architecture.name, tried)}")
    for name, found in results.items():
        for test, (outcome, *_) in sorted(found["tests"].items()):
            if outcome == "failed":
                print(f"{name}: {test} failed")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
