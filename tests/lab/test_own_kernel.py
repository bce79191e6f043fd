# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that are no package of Debian's, and hosts that are no Debian."""

import gzip
import json
import lzma
import os
import platform
import shutil
from pathlib import Path

import pytest

from kmemdump.cli import main
from kmemdump.errors import UnsupportedError, UsageError
from kmemdump.installing import require_programs
from kmemdump.lab import AARCH64, X86_64, Setup, apt
from kmemdump.lab.busybox import find_busybox
from kmemdump.lab.own_kernel import find_own_image, own_kernel
from rigs.fake_archive import OWN, FakeArchive
from rigs.writers.kernel_image import write_arm64, write_x86, write_zboot

FEDORA = "6.11.4-301.fc41.x86_64"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_an_image_and_its_modules(tmp_path):
    image = put(tmp_path / "vmlinuz", write_x86(FEDORA))
    kernel = own_kernel(image, root=tmp_path)
    assert (kernel.release, kernel.architecture) == (FEDORA, X86_64)
    assert kernel.vmlinuz == image
    assert not kernel.has_modules
    assert Setup(kernel).modules == ()
    modules = tmp_path / "usr/lib/modules" / FEDORA
    put(modules / "kernel/drivers/net/dummy.ko.gz", gzip.compress(b"a module"))
    put(modules / "kernel/drivers/qemu-fw-cfg.ko", b"not this name")
    kernel = own_kernel(image, root=tmp_path)
    assert Setup(kernel).modules == ("dummy",)
    assert kernel.module("dummy") == b"a module"
    with pytest.raises(
        UsageError, match="has no folder 'kernel', expected the modules"
    ):
        own_kernel(image, tmp_path)
    arm = put(tmp_path / "arm", write_zboot(write_arm64("6.12.0-1.fc42.aarch64")))
    assert own_kernel(arm, modules, root=tmp_path).architecture is AARCH64


@pytest.mark.parametrize(
    ("place", "release"),
    [
        ("boot/vmlinuz-{}", "6.8.0-45-generic"),  # Ubuntu
        ("usr/lib/modules/{}/vmlinuz", FEDORA),
        ("usr/lib/modules/{}/vmlinuz", "6.11.1-arch1-1"),
        ("boot/vmlinuz-lts", "6.12.52-0-lts"),  # Alpine
    ],
)
def test_the_hosts_own(place, release, tmp_path):
    path = put(tmp_path / place.format(release), write_x86(release))
    put(tmp_path / "boot/vmlinuz-edge", write_x86("6.17.1-0-edge"))
    put(tmp_path / "boot/vmlinuz-aaa", b"no image")
    assert find_own_image(release, tmp_path) == path


def test_the_hosts_own_is_not_there(tmp_path, monkeypatch):
    put(tmp_path / "boot/vmlinuz-lts", write_x86("6.12.52-0-lts"))
    with pytest.raises(
        UnsupportedError, match="kmemdump demo --vmlinuz FILE"
    ) as caught:
        find_own_image(FEDORA, tmp_path)
    assert f"the host's kernel {FEDORA} is neither in /boot nor" in str(caught.value)
    # As Ubuntu has it.
    path = put(tmp_path / f"boot/vmlinuz-{FEDORA}", write_x86(FEDORA))
    monkeypatch.setattr(os, "access", lambda where, mode: where != path)
    with pytest.raises(UnsupportedError, match=f"install -m 644 {path}"):
        find_own_image(FEDORA, tmp_path)


def test_a_folder_that_only_root_may_enter(tmp_path, monkeypatch):
    """As /boot of Arch."""
    boot = tmp_path / "boot"

    def is_file(path: Path) -> bool:
        if path.parent == boot:
            raise PermissionError(13, "Permission denied", str(path))
        return os.path.isfile(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    with pytest.raises(UnsupportedError, match=f"{boot}: Permission denied: the host"):
        find_own_image(FEDORA, tmp_path)
    path = put(tmp_path / f"usr/lib/modules/{FEDORA}/vmlinuz", write_x86(FEDORA))
    assert find_own_image(FEDORA, tmp_path) == path


def test_the_hosts_own_is_packed_in_an_unknown_way(tmp_path):
    put(tmp_path / f"boot/vmlinuz-{FEDORA}", write_zboot(b"", "zstd"))
    put(tmp_path / "boot/vmlinuz-other", b"no image")
    with pytest.raises(UnsupportedError, match="'zstd', expected") as caught:
        find_own_image(FEDORA, tmp_path)
    assert "kmemdump demo --vmlinuz FILE" in str(caught.value)


@pytest.mark.parametrize("ending", ["gz", "xz"])
def test_a_damaged_module(ending, tmp_path):
    image = put(tmp_path / "vmlinuz", write_x86(FEDORA))
    modules = tmp_path / "modules"
    packed = {"gz": gzip, "xz": lzma}[ending].compress(b"a module" * 99)
    put(modules / f"kernel/dummy.ko.{ending}", packed[:-9])
    kernel = own_kernel(image, modules)
    with pytest.raises(UnsupportedError, match=rf"dummy\.ko\.{ending}: is damaged: "):
        kernel.module("dummy")


@pytest.fixture
def no_debian(tmp_path, monkeypatch) -> Path:
    """A host with an empty PATH, of which a folder is returned."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("KMEMDUMP_LAB", str(tmp_path / "lab"))
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "fedora"})
    return folder


def test_a_demo_says_what_to_install(no_debian, tmp_path, capsys):
    image = put(tmp_path / "vmlinuz", write_x86(FEDORA))
    output = tmp_path / "out"
    demo = ["demo", "-o", str(output)]
    assert main([*demo, "--vmlinuz", str(image)]) == 3
    assert capsys.readouterr().err == (
        "kmemdump: error: qemu-system-x86_64 and setpriv are not installed; "
        "dnf install qemu-system-x86-core util-linux\n"
    )
    assert main([*demo, "--kernel", "6.12"]) == 3
    err = capsys.readouterr().err
    assert (
        "with which Debian's kernels are fetched; another kernel, such as this" in err
    )
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        ("Debian", ""),
        ("none", ""),
        ("Ubuntu", "archives are of Ubuntu-Security, Ubuntu, not Debian's, whose kern"),
        ("no-sources", "apt has no sources, from which Debian's kernels are fetched"),
    ],
)
def test_apt_of_another_distribution(label, problem, tmp_path, monkeypatch, capsys):
    archive = FakeArchive(tmp_path / "archive", label=label)
    archive.add(OWN, "linux-image-generic")
    monkeypatch.setenv("PATH", f"{tmp_path}/archive/bin:/usr/bin:/bin")
    monkeypatch.setenv("KMEMDUMP_LAB", str(tmp_path / "lab"))
    assert apt.have_debian() == (problem == "")
    if not problem:
        return

    def find(release: str) -> Path:
        raise UnsupportedError(f"{release} is asked for")

    monkeypatch.setattr("kmemdump.lab.own_kernel.find_own_image", find)
    demo = ["demo", "-o", str(tmp_path / "out")]
    assert main(demo) == 3
    assert f"{os.uname().release} is asked for" in capsys.readouterr().err
    assert main([*demo, "--kernel", "6.12"]) == 3
    err = capsys.readouterr().err
    assert problem in err
    assert "kmemdump demo --vmlinuz FILE" in err


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--vmlinuz", "x", "--kernel", "6.12"], "exclude each other"),
        (["--modules", "x"], "--modules needs --vmlinuz"),
        (["--vmlinuz", "nosuch"], "nosuch: No such file"),
        (
            ["--vmlinuz", "{}", "--arch", "aarch64"],
            "is of x86_64, but --arch is aarch64",
        ),
    ],
)
def test_wrong_kernels(more, problem, tmp_path, capsys):
    image = put(tmp_path / "vmlinuz", write_x86(FEDORA))
    more = [word.format(image) for word in more]
    output = tmp_path / "out"
    assert main(["demo", "-o", str(output), *more]) in (2, 3)
    assert problem in capsys.readouterr().err
    assert not output.exists()


def test_the_hosts_busybox(no_debian, lab_cache):
    with pytest.raises(UnsupportedError, match=r"busybox is installed(?s:.*)dnf"):
        find_busybox()
    assert not apt.have_apt()


def test_missing_programs(no_debian):
    with pytest.raises(UnsupportedError, match="nosuch is not installed\ndnf install"):
        require_programs("nosuch")


@pytest.mark.vm
@pytest.mark.matrix
@pytest.mark.parametrize("name", ["frame-pointers", "6.12-generic", "6.1"])
def test_a_demo_without_debian(name, lab_cache, tmp_path, monkeypatch, capsys):
    """
    Its kernel, QEMU and a busybox are all there is.

    One of the kernels is built as Ubuntu's are, with frame pointers instead of ORC.
    """
    kernel = lab_cache.kernel(name)
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in ("qemu-system-x86_64", "setpriv", "zstd", "ldd", "cp", "cat", "sh"):
        if (found := shutil.which(program)) is not None:
            (folder / program).symlink_to(found)
    (folder / "busybox").symlink_to(lab_cache.busybox())
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("KMEMDUMP_LAB", str(tmp_path / "lab"))
    image = shutil.copy(kernel.vmlinuz, tmp_path / "vmlinuz")
    more = []
    if kernel.has_modules and name != "6.1":  # That one goes without.
        more = ["--modules", str(kernel._modules)]
    demo = ["demo", "--json", "-o", str(tmp_path), "--vmlinuz", str(image), *more]
    assert main(demo) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kernel"] == kernel.release
    assert record["complete"]
    assert record["cause"]["kind"] == "panic"
    assert not (tmp_path / "lab").exists()  # Nothing is downloaded.
