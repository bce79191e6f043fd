# SPDX-License-Identifier: GPL-2.0-or-later
"""The copier, and a machine that it copies."""

import os
import platform

import pytest

from kmemdump.formats.kdump_list import LIST_SIZE
from kmemdump.lab import get_architecture
from kmemdump.lab.copier import build_copier
from rigs.copier import Ram, mark


@pytest.fixture(scope="session")
def copier(lab_cache):
    return build_copier(lab_cache, get_architecture(platform.machine()))


@pytest.fixture
def ram():
    """A marked machine's memory."""
    ram = Ram()
    ram.data[LIST_SIZE:] = os.urandom(len(ram.data) - LIST_SIZE)
    mark(ram)
    return ram
