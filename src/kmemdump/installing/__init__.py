# SPDX-License-Identifier: GPL-2.0-or-later
"""How to install what is missing: programs, and Python packages of the extras."""

from kmemdump.installing.distributions import describe_install, require_programs
from kmemdump.installing.extras import describe_extra, in_debian_package

__all__ = [
    "describe_extra",
    "describe_install",
    "in_debian_package",
    "require_programs",
]
