# SPDX-License-Identifier: GPL-2.0-or-later
"""Area files: which files has each process open? For leaks, and for full disks."""

from drgn.helpers.linux.fs import d_path, for_each_file
from drgn.helpers.linux.pid import for_each_task

from kmemdump import area


def open_files(prog):
    """How many files each process has open, and the first few."""
    for task in for_each_task(prog):
        if task.pid != task.tgid or not task.files:
            continue  # A thread, which shares them; or one of the kernel's.
        paths = [d_path(file.f_path).decode() for _, file in for_each_file(task)]
        name = task.comm.string_().decode()
        print(f"{task.pid.value_():7} {name:15} {len(paths):5}  {' '.join(paths[:3])}")


AREA = area("files", "open files of all processes", "mount", open_files)
