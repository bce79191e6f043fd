# SPDX-License-Identifier: GPL-2.0-or-later
"""
Run a compiler without the options that it does not know.

A kernel's build names options of the compiler that built the kernel, which this machine
may lack. They change how code is laid out and checked, not what is in memory, so that a
module that dies on purpose does without.

A program: ``python older_compiler.py COMPILER ARGUMENT...``.
"""

import re
import subprocess
import sys
from collections.abc import Sequence

__all__ = ["main"]

# In another language than C's, the message and the quotation marks differ.
_UNKNOWN = re.compile(r"error: unrecognized command[- ]line option .(-[^\s'\u2019;]+)")


def main(argv: Sequence[str]) -> int:
    """Run a compiler, and return its exit status."""
    done = _run(argv)
    if done.returncode and (unknown := set(_UNKNOWN.findall(done.stderr))):
        done = _run([word for word in argv if word not in unknown])
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
