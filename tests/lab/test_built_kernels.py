# SPDX-License-Identifier: GPL-2.0-or-later
"""How kernels are built; with a make that only writes files."""

import os
import subprocess
from dataclasses import replace

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.lab import AARCH64, PackageCache, build_module
from kmemdump.lab import built_kernels as it
from kmemdump.lab.built_kernels import BUILT_KERNELS
from rigs.fake_archive import OWN, FakeArchive

ANDROID = BUILT_KERNELS["android"]
MAKE = r"""#!/bin/sh
echo "$@" >>"$LOG"
for word in "$@"; do
	case $word in
	O=*) out=${word#O=} ;;
	M=*) echo module >"${word#M=}/kmemdump_lab.ko" && exit ;;
	KCONFIG_ALLCONFIG=*) { echo; cat "${word#*=}"; } >"$out/.config" && exit ;;
	kernelrelease) echo 6.12.7-android && exit ;;
	KBUILD_RUN_COMMAND=*) mkdir "${word##* }" && exit ;;
	esac
done
mkdir -p "$out/arch/arm64/boot" "$out/drivers/net"
echo image >"$out/arch/arm64/boot/Image"
echo debug >"$out/vmlinux"
echo dummy >"$out/drivers/net/dummy.ko"
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A lab whose archive has the source; all tools are there."""
    archive = FakeArchive(tmp_path / "archive")
    source = tmp_path / "linux-source-6.12"
    source.mkdir()
    (source / "Makefile").touch()
    packed = tmp_path / "linux-source-6.12.tar.xz"
    argv = ["tar", "-cJf", packed, "-C", tmp_path, source.name]
    subprocess.run(argv, check=True)
    files = {"usr/src/linux-source-6.12.tar.xz": f"-> {packed}"}
    archive.add(OWN, "linux-source-6.12", files=files)
    programs = archive.folder / "bin"
    for name in (*it._TOOLS, *ANDROID.tools):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (programs / "xz").unlink()
    (programs / "make").write_text(MAKE)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "made"))
    monkeypatch.setattr(it, "_LIBRARIES", {})
    return PackageCache(tmp_path / "lab")


def test_it_is_built_once(cache, tmp_path):
    kernel = cache.kernel("android", AARCH64)
    assert (kernel.name, kernel.release) == ("android", "6.12.7-android")
    assert kernel.version == "6.12.7"
    assert kernel.folder == cache.folder / ANDROID.entry
    assert kernel.vmlinuz.read_text() == "image\n"
    assert cache.vmlinux(kernel).read_text() == "debug\n"
    assert kernel.module("dummy") == b"dummy\n"
    assert build_module(cache, kernel).read_text() == "module\n"
    config = (kernel.folder / "boot/config-6.12.7-android").read_text()
    for line in (
        "CONFIG_ARM64_VA_BITS_39=y",
        "CONFIG_CFI_CLANG=y",
        "CONFIG_DUMMY=m",
        "# CONFIG_CRASH_DUMP is not set",
    ):
        assert line in config.splitlines()
    made = (tmp_path / "made").read_text().splitlines()
    assert all("ARCH=arm64 LLVM=-19" in line for line in made)
    assert cache.kernel("android", AARCH64) == kernel
    assert (tmp_path / "made").read_text().splitlines() == made
    # Nothing of the build is left.
    assert not list(cache.folder.glob(".kmemdump-*"))


def test_headers_are_kept_where_modules_are_built_for_it(cache, tmp_path, monkeypatch):
    kernel = cache.kernel("android", AARCH64)
    with pytest.raises(UnsupportedError, match="android keeps no headers"):
        cache.headers(kernel)
    recipe = replace(ANDROID, headers=True, options=())
    monkeypatch.setitem(it.BUILT_KERNELS, "android", recipe)
    kernel = cache.kernel("android", AARCH64)
    assert cache.headers(kernel) == kernel.folder / "headers"
    assert (kernel.folder / "headers").is_dir()
    made = (tmp_path / "made").read_text()
    assert "/scripts/package/install-extmod-build " in made


def test_a_kernel_that_nobody_looks_into_has_no_debug_info():
    needs = replace(ANDROID, debug_info=False).needs
    assert set(ANDROID.needs) - set(needs) == {"DEBUG_INFO_DWARF5", "DEBUG_INFO_BTF"}


def test_a_source_that_cannot_have_an_option(cache, tmp_path):
    make = tmp_path / "archive/bin/make"
    make.write_text(MAKE.replace('cat "${word#*=}"', "echo CONFIG_SMP=y"))
    with pytest.raises(UnsupportedError, match=r"cannot have CONFIG_EXPERT, CONFIG_"):
        cache.kernel("android", AARCH64)


def test_an_option_that_must_not_be_set(cache, tmp_path):
    make = tmp_path / "archive/bin/make"
    make.write_text(MAKE.replace("{ echo;", "{ echo; echo CONFIG_VMCORE_INFO=y;"))
    with pytest.raises(UnsupportedError, match=r"cannot have VMCORE_INFO$"):
        cache.kernel("android", AARCH64)


def test_a_build_that_fails(cache, tmp_path):
    (tmp_path / "archive/bin/make").write_text(
        "#!/bin/sh\necho 'a.c:1: error: b'; false"
    )
    with pytest.raises(
        UnsupportedError, match=r"android does not build: a\.c:1: error"
    ):
        cache.kernel("android", AARCH64)
    assert not (cache.folder / ANDROID.entry).exists()


def test_tools_that_are_missing(cache, monkeypatch, tmp_path):
    for name in ("clang-19", "ld.lld-19"):
        (tmp_path / "archive/bin" / name).unlink()
    (tmp_path / "archive/bin/dpkg-deb").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{tmp_path}/archive/bin")
    monkeypatch.setattr(it, "_LIBRARIES", {"no/such.h": "libelf-dev"})
    with pytest.raises(UnsupportedError) as error:
        it.build_kernel(ANDROID, cache.apt(AARCH64, "sid"), tmp_path)
    problem, advice = str(error.value).splitlines()
    assert problem.endswith("which takes xz-utils, clang-19, lld-19, libelf-dev")
    assert advice == (
        "as root, run 'apt-get install --no-install-recommends --yes "
        "xz-utils clang-19 lld-19 libelf-dev'"
    )


def test_another_recipe_is_another_kernel():
    assert replace(ANDROID, options=()).entry != ANDROID.entry
    assert replace(ANDROID, tools={}).entry == ANDROID.entry
