# SPDX-License-Identifier: GPL-2.0-or-later
"""satyr, which reads uReports for ABRT: github.com/abrt/satyr, as a shared library."""

import ctypes
import ctypes.util
import json
import os
from typing import Any

import pytest

__all__ = ["read_ureport"]


def read_ureport(report: dict[str, Any]) -> dict[str, Any]:
    """Have satyr read a uReport; return what it writes of what it read."""
    name = os.environ.get("KMEMDUMP_SATYR") or ctypes.util.find_library("satyr")
    if name is None:
        pytest.skip("needs libsatyr; Debian has none, KMEMDUMP_SATYR may name one")
    satyr = ctypes.CDLL(name)
    error = ctypes.c_char_p()
    satyr.sr_report_from_json_text.restype = ctypes.c_void_p
    satyr.sr_report_to_json.restype = ctypes.c_char_p
    satyr.sr_report_to_json.argtypes = [ctypes.c_void_p]
    text = json.dumps(report).encode()
    read = satyr.sr_report_from_json_text(text, ctypes.byref(error))
    assert read, error.value
    written: dict[str, Any] = json.loads(satyr.sr_report_to_json(read))
    return written
