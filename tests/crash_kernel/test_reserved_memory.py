# SPDX-License-Identifier: GPL-2.0-or-later
"""A crash kernel copies to memory that a reset does not clear."""

import pytest

from kmemdump.cli import main
from kmemdump.core import open_core
from kmemdump.crash_kernel.initramfs import pack_crash_initramfs
from kmemdump.crash_kernel.settings import CopierSettings
from kmemdump.lab import CrashType
from kmemdump.lab.copier import build_copier
from kmemdump.lab.crashes import trigger_crash
from kmemdump.memory.ranges import Range
from rigs.copier import assert_whole, valid_raw
from rigs.crash_kernel import (
    load_crash_kernel,
    make_setup_fields,
    marked_from_outside,
    wait_for_reboot,
)

pytestmark = [pytest.mark.vm, pytest.mark.matrix]
WHERE = Range(0x18000000, 32 << 20)


def test_copies_to_reserved_memory(snapshots, make_setup, lab_cache, tmp_path):
    fields = make_setup_fields(lab_cache, make_setup()) | {"disk": 64}
    reserved = f"memmap={WHERE.size:#x}${WHERE.start:#x}"
    setup = make_setup(**fields | {"arguments": (*fields["arguments"], reserved)})
    place = f"memory:{WHERE.start:#x}:{WHERE.size:#x}"
    # The first is too small: the image goes to the next one.
    small = f"memory:{WHERE.start:#x}:0x10000"
    copier = build_copier(lab_cache, setup.architecture).read_bytes()
    initramfs = pack_crash_initramfs(copier, CopierSettings((small, place)), {})
    with snapshots.machine(setup, timeout=900) as machine:
        page = load_crash_kernel(machine, initramfs)
        with marked_from_outside(machine, page):
            pass
        said = wait_for_reboot(machine, lambda: trigger_crash(machine, CrashType.PANIC))
        with open(machine.ram, "rb") as ram:
            ram.seek(WHERE.start)
            data = ram.read(WHERE.size)
    assert f"memory at {WHERE.start:#x}: no space left" in said
    assert f"memory at {WHERE.start:#x}: " in said.partition("no space left")[2]
    copy = valid_raw(data)
    assert copy is not None
    assert_whole(copy)
    image, core = tmp_path / "image", tmp_path / "core"
    image.write_bytes(data)
    assert main(["collect", str(image), "-o", str(core)]) == 0
    with open_core(core) as opened:
        assert opened.manifest.backend == "kdump"
        assert "sysrq" in opened.report().cause.sentence
