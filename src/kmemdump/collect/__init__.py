# SPDX-License-Identifier: GPL-2.0-or-later
"""
After the crash: what firmware left becomes a dump, and a dump becomes a core image.

Each source is a file here. All of them end in pieces, which :mod:`assemble` puts where
they belong; what is missing is a hole with a name. Names are imported when they are
first used: a folder needs no Sahara.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # As typing has it, for which not everybody can wait.
if TYPE_CHECKING:
    from kmemdump.collect.assemble import Collected, Named, assemble
    from kmemdump.collect.folder import collect_folder
    from kmemdump.collect.kinfo import collect_kinfo, find_kinfo
    from kmemdump.collect.options import Options
    from kmemdump.collect.ramoops import read_ramoops
    from kmemdump.collect.rawdump import collect_rawdump
    from kmemdump.collect.sahara import Saved, SocketConnection, download
    from kmemdump.collect.source import open_source, read_device
    from kmemdump.collect.table import Table, collect_table, read_table
    from kmemdump.collect.target import DumpTarget
    from kmemdump.collect.usb import UsbConnection
    from kmemdump.collect.write import write_collected

_HOMES = {
    "assemble": ("Collected", "Named", "assemble"),
    "folder": ("collect_folder",),
    "kinfo": ("collect_kinfo", "find_kinfo"),
    "options": ("Options",),
    "ramoops": ("read_ramoops",),
    "rawdump": ("collect_rawdump",),
    "sahara": ("Saved", "SocketConnection", "download"),
    "source": ("open_source", "read_device"),
    "table": ("Table", "collect_table", "read_table"),
    "target": ("DumpTarget",),
    "usb": ("UsbConnection",),
    "write": ("write_collected",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Collected",
    "DumpTarget",
    "Named",
    "Options",
    "Saved",
    "SocketConnection",
    "Table",
    "UsbConnection",
    "assemble",
    "collect_folder",
    "collect_kinfo",
    "collect_rawdump",
    "collect_table",
    "download",
    "find_kinfo",
    "open_source",
    "read_device",
    "read_ramoops",
    "read_table",
    "write_collected",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = found  # Also where a module of the same name is in the way.
    return found
