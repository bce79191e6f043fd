# SPDX-License-Identifier: GPL-2.0-or-later
"""
Load what every worker needs, in the process that workers are forked from.

They share that memory as long as nobody writes to it. The garbage collector would: its
objects are frozen, as :func:`gc.freeze` advises before a fork.
"""

import gc

import kmemdump.areas
import kmemdump.questions.crash_commands
import kmemdump.targets.qmp
import kmemdump.watch.worker  # noqa: F401
from kmemdump.questions.drgn_internals import load_all

load_all()
gc.collect()
gc.freeze()
