# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask a core image."""

from kmemdump import open_core

with open_core("vm.core") as core:
    print(core.ask("ps"))
    print(core.report())
