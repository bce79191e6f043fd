# SPDX-License-Identifier: GPL-2.0-or-later
"""Look at a file that somebody sent, with at most 1 GiB and a minute of CPU time."""

from kmemdump import Limits, open_core, run_bounded


def look(path: str) -> str:
    with open_core(path) as core:
        return str(core.report())


if __name__ == "__main__":
    print(run_bounded(look, "vm.core", limits=Limits(memory=1 << 30, cpu=60)))
