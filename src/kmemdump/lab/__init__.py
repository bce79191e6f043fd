# SPDX-License-Identifier: GPL-2.0-or-later
"""Crash Debian's kernels on purpose, in QEMU, with a guest of our own."""

from kmemdump.lab.architectures import (
    AARCH64,
    ARCHITECTURES,
    X86_64,
    Architecture,
    get_architecture,
)
from kmemdump.lab.crashes import CrashType, crash_guest
from kmemdump.lab.guest_python import python_image
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.lab.machine import Machine
from kmemdump.lab.module import build_module, build_modules
from kmemdump.lab.packages import PackageCache, default_folder
from kmemdump.lab.setup import Setup

__all__ = [
    "AARCH64",
    "ARCHITECTURES",
    "X86_64",
    "Architecture",
    "CrashType",
    "KernelPackage",
    "Machine",
    "PackageCache",
    "Setup",
    "build_module",
    "build_modules",
    "crash_guest",
    "default_folder",
    "get_architecture",
    "python_image",
]
