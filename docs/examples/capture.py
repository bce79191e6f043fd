# SPDX-License-Identifier: GPL-2.0-or-later
"""Capture a VM."""

from kmemdump import capture, open_target

with open_target("qmp:vm.qmp") as vm:
    capture(vm).save("vm.core")
