# SPDX-License-Identifier: GPL-2.0-or-later
"""What demonstrations write into a user's folder, and what they leave alone."""

import os
from pathlib import Path

import pytest

from kmemdump.errors import OutputError, UnsupportedError
from kmemdump.lab import PackageCache
from kmemdump.lab.demo import run_firmware_demo
from kmemdump.lab.dump_folder import check_dump_folder, new_dump_folder
from kmemdump.lab.own_kernel import own_kernel
from rigs.full_disk import needs_root
from rigs.writers.kernel_image import write_arm64

NOBODY = 65534
REGISTERS = b"\x7fELF registers"


def leave(folder: Path, **files: bytes) -> Path:
    """Leave a file of each name, as the simulated firmware does."""
    folder.mkdir()
    for name, data in files.items():
        (folder / f"{name}.BIN").write_bytes(data)
    return folder


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A demonstration on a machine whose QEMU, if it has one, must not be started."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delattr("kmemdump.lab.demo.Machine")
    image = tmp_path / "Image"
    image.write_bytes(write_arm64("6.12.0-test"))
    kernel = own_kernel(image, root=tmp_path)

    def run(*there: str) -> None:
        for name in there:
            (programs / name).write_text("#!/bin/sh\n")
            (programs / name).chmod(0o755)
        cache = PackageCache(tmp_path / "lab")
        run_firmware_demo(tmp_path, cache, lambda line: None, kernel)

    return run


def test_a_users_dump_stays(demo, tmp_path):
    dump = leave(tmp_path / "dump", md_CPUS=b"a vendor's registers", md_KLOG=b"log")
    (dump / "notes.txt").write_text("precious")
    with pytest.raises(UnsupportedError, match="are not installed"):
        demo()
    with pytest.raises(OutputError, match=r"dump: has 'notes\.txt', which is not a"):
        demo("qemu-system-aarch64", "setpriv")
    (dump / "notes.txt").unlink()
    with pytest.raises(OutputError, match=r"has no md_CPUS\.BIN of a demonstration, e"):
        demo("qemu-system-aarch64", "setpriv")
    assert sorted(os.listdir(dump)) == ["md_CPUS.BIN", "md_KLOG.BIN"]


@pytest.mark.parametrize(("kind", "what"), [("file", "no folder"), ("link", "a link")])
def test_no_folder_is_found_before_the_boot(kind, what, demo, tmp_path):
    far = leave(tmp_path / "far", md_CPUS=REGISTERS)
    if kind == "file":
        (tmp_path / "dump").write_text("precious")
    else:
        (tmp_path / "dump").symlink_to(far)
    with pytest.raises(OutputError, match=f"dump: is {what}, expected nothing there"):
        demo("qemu-system-aarch64", "setpriv")
    assert os.listdir(far) == ["md_CPUS.BIN"]


@needs_root
def test_is_led_by_no_link_of_another_user(tmp_path):
    (tmp_path / "far").mkdir()
    shared = tmp_path / "shared"
    shared.mkdir(0o777)
    (shared / "out").symlink_to(tmp_path / "far")
    for path in (shared, shared / "out"):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    with pytest.raises(OutputError, match="out is a link of user 65534"):
        check_dump_folder(shared / "out/dump")


@pytest.mark.parametrize("before", [None, {}, {"md_CPUS": REGISTERS, "md_OLD": b"x"}])
def test_replaces_the_dump_of_another_demonstration(before, tmp_path):
    dump = tmp_path / "dump"
    if before is not None:
        leave(dump, **before)
    check_dump_folder(dump)
    with new_dump_folder(dump) as partial:
        leave(partial, md_CPUS=REGISTERS)
        assert not (dump / "md_CPUS.BIN").exists() or before
    assert (os.listdir(tmp_path), os.listdir(dump)) == (["dump"], ["md_CPUS.BIN"])


def test_an_end_in_between_leaves_the_old_dump(tmp_path):
    dump = leave(tmp_path / "dump", md_CPUS=REGISTERS)

    def leave_a_part(folder: Path) -> None:
        leave(folder, md_NEW=b"x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), new_dump_folder(dump) as partial:
        leave_a_part(partial)
    assert (os.listdir(tmp_path), os.listdir(dump)) == (["dump"], ["md_CPUS.BIN"])
