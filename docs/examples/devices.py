# SPDX-License-Identifier: GPL-2.0-or-later
"""Which device files are open?"""

from collections import Counter

from drgn.helpers.linux.fs import d_path, for_each_file
from drgn.helpers.linux.pid import for_each_task


def open_devices(prog):
    """Print how often each device file is open."""
    found = Counter()
    for task in for_each_task(prog):
        for _, file in for_each_file(task):
            path = d_path(file.f_path).decode()
            if path.startswith("/dev/"):
                found[path] += 1
    for path, count in sorted(found.items()):
        print(f"{path:15} {count:5}")
