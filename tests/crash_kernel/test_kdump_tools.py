# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kdump-tools as Debian installs it, with our drop-in."""

import re
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.core import open_core
from kmemdump.lab import CrashType
from kmemdump.lab.copier import build_copier
from kmemdump.lab.crashes import trigger_crash
from rigs.copier import assert_whole
from rigs.crash_kernel import (
    hold_page,
    make_setup_fields,
    marked_from_outside,
    wait_for_reboot,
)
from rigs.debian_root import have_roots
from rigs.dumps import answers
from rigs.kdump_tools import (
    DISK,
    add_files,
    kdump_tools_disk,
    read_folder,
    start_kdump_tools,
)

pytestmark = [
    pytest.mark.vm,
    pytest.mark.matrix,
    pytest.mark.skipif(not have_roots(), reason="needs root and debootstrap"),
]
HOOKS = Path(__file__).parents[2] / "kdump/hooks"
UNIT = "/etc/systemd/system/kdump-tools-dump.service.d/kmemdump.conf"
DEFAULTS = """USE_KDUMP=1
KDUMP_KERNEL=/var/lib/kdump/vmlinuz
KDUMP_INITRD=/var/lib/kdump/initrd.img
KDUMP_COREDIR=/var/crash
KDUMP_CMDLINE="root=/dev/vda rw console=ttyS0"
"""
QUESTIONS = ("log", "sys", "ps", "mod", "bt -a")


@pytest.fixture(scope="module", params=["reboot", "return"])
def crashed(request, snapshots, make_setup, lab_cache, tmp_path_factory):
    """What ``then=``, the crash kernel said, and ``/var/crash`` after it."""
    folder, plain = tmp_path_factory.mktemp("debian"), make_setup("6.1")
    fields = make_setup_fields(lab_cache, plain) | {"disk": DISK}
    setup = make_setup("6.1", **fields)
    settings, defaults, image = folder / "conf", folder / "defaults", folder / "disk"
    settings.write_text(f"to=file:/var/crash\nthen={request.param}\notherwise=return\n")
    defaults.write_text(DEFAULTS)
    kept = kdump_tools_disk(lab_cache, setup.kernel)
    files = {
        UNIT: HOOKS / "debian.conf",
        "/etc/kmemdump/kdump.conf": settings,
        "/etc/default/kdump-tools": defaults,
        "/usr/lib/kmemdump/kmemdump-kdump": build_copier(lab_cache, setup.architecture),
    }
    add_files(kept, image, files)
    with snapshots.machine(setup, timeout=900) as machine:
        page = hold_page(machine)
        start_kdump_tools(machine, image)
        with marked_from_outside(machine, page) as registration:
            assert not registration.last.problems
        said = wait_for_reboot(machine, lambda: trigger_crash(machine, CrashType.PANIC))
        found = read_folder(machine.folder / "disk", "/var/crash", folder / "found")
    image.unlink()
    return request.param, said, found


def test_what_is_marked_comes_first(crashed, tmp_path):
    then, said, found = crashed
    assert re.search(r"kmemdump: /var/crash/kmemdump-\d+\.elf: \d+ bytes", said), said
    (copy,) = found.glob("kmemdump-*.elf")
    assert_whole(copy.read_bytes())
    core = tmp_path / "core"
    assert main(["collect", str(copy), "-o", str(core)]) == 0
    with open_core(core) as opened:
        assert opened.manifest.backend == "kdump"
        assert "sysrq" in opened.report().cause.sentence
    dumps = list(found.glob("2*/dump.2*"))
    if then == "reboot":
        assert not dumps
        return
    # makedumpfile's dump of the same death says the same.
    (whole,) = dumps
    assert answers(core, QUESTIONS) == answers(whole, QUESTIONS)
