# SPDX-License-Identifier: GPL-2.0-or-later
"""Fedora's kdump-utils with our hooks: its own scripts run them."""

import os
import platform
import shutil
from pathlib import Path

import pytest

from kmemdump.backends.elf_header_region import Description
from kmemdump.backends.kdump import KdumpBackend
from kmemdump.collect.source import Options, open_source
from kmemdump.formats.kdump_list import LIST_SIZE
from kmemdump.lab import get_architecture
from kmemdump.lab.copier import build_copier
from kmemdump.marking.registry import Registry
from rigs.copier import INFO, LIST, Ram, assert_whole, valid_raw, write_vmcore
from rigs.kdump_utils import SOURCE, KdumpRoot

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(
        not (SOURCE / "dracut/99kdumpbase/kdump.sh").exists(),
        reason="KMEMDUMP_KDUMP_UTILS names no clone of kdump-utils",
    ),
]
HOOKS = Path(__file__).parents[2] / "kdump/hooks"
COLLECTOR = "usr/lib/kmemdump/core-collector.sh"


@pytest.fixture(params=[True, False], ids=["marked", "not marked"])
def marked(request):
    return request.param


@pytest.fixture
def root(lab_cache, tmp_path, marked):
    root = KdumpRoot(tmp_path / "root", lab_cache)
    copier = build_copier(lab_cache, get_architecture(platform.machine()))
    ram = Ram()
    ram.data[LIST_SIZE:] = os.urandom(len(ram.data) - LIST_SIZE)
    if marked:
        registry = Registry(description=Description(62, INFO))
        registry.attach(KdumpBackend(ram, LIST))
        registry.register("one", LIST.end, 4096)
    write_vmcore(root.path / "vmcore", [(ram.range.start, bytes(ram.data))])
    (root.path / "usr/lib/kmemdump").mkdir()
    shutil.copy(copier, root.path / "usr/lib/kmemdump/kmemdump-kdump")
    shutil.copy(HOOKS / "core-collector.sh", root.path / COLLECTOR)
    (root.path / "disk").write_bytes(b"Raw_Dmp!".ljust(1 << 20, b"\0"))
    return root


def dump(root: KdumpRoot) -> bytes | None:
    """Return what kdump-utils itself wrote."""
    (folder,) = (root.path / "sysroot/var/crash").iterdir()
    assert not (folder / "vmcore-incomplete").exists()
    path = folder / "vmcore"
    return path.read_bytes() if path.exists() else None


def test_before_its_dump(root, marked):
    """kdump.sh runs pre.d, and then makedumpfile all the same."""
    root.write("etc/kdump.conf", "path /var/crash\n")
    root.write("etc/kmemdump/kdump.conf", "vmcore=/vmcore\nto=raw:/disk\n")
    root.write("etc/kdump/pre.d/kmemdump.sh", (HOOKS / "fedora.sh").read_text())
    said = root.run()
    found = valid_raw((root.path / "disk").read_bytes())
    if marked:
        assert_whole(found)
        assert "kmemdump: /disk: " in said
    else:
        assert found is None
        assert "nothing was marked" in said
    assert dump(root) == b"dump\n"
    assert "makedumpfile -l --message-level 7 -d 31" in said


def test_instead_of_its_dump(root, marked):
    """As core_collector: what is marked is its vmcore; without a list, its own dump."""
    root.write("etc/kdump.conf", f"path /var/crash\ncore_collector /{COLLECTOR} # us\n")
    said = root.run()
    if not marked:
        assert "nothing was marked" in said
        assert dump(root) == b"dump\n"
        return
    assert "makedumpfile" not in said.replace(COLLECTOR, "")
    data = dump(root)
    assert_whole(data)
    (path,) = root.path.glob("sysroot/var/crash/*/vmcore")
    with open_source(str(path), Options()) as target:
        assert target.dump.backend == "kdump"
        assert target.memory.read(LIST.end, 4096)
