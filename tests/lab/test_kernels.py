# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels are found in whichever suite has them, and unpacked in any layout."""

import lzma
import os
import shutil
import subprocess

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.lab import AARCH64, X86_64, KernelPackage, PackageCache, Setup
from kmemdump.lab.apt import MissingPackageError
from kmemdump.lab.kernel_names import KernelName
from rigs.fake_archive import MAIN, OWN, SECURITY, FakeArchive

pytestmark = pytest.mark.slow

ELF = "\x7fELF and more"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    made = FakeArchive(tmp_path / "archive")
    monkeypatch.setenv("PATH", f"{tmp_path}/archive/bin:{os.environ['PATH']}")
    for suite in ("own", "bullseye", "bookworm", "trixie", "sid", "experimental"):
        made.add(suite, "base-files")
    made.add("trixie-backports", "base-files")
    return made


@pytest.fixture
def cache(tmp_path):
    return PackageCache(tmp_path / "lab")


def image(release):
    return f"linux-image-{release}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("6.12", KernelName("6.12")),
        ("5.10-rt", KernelName("5.10", "rt")),
        ("6.12-16k", KernelName("6.12", "16k")),
        ("trixie-6.12", KernelName("6.12", suite="trixie")),
        (
            "trixie-backports-6.18-generic",
            KernelName("6.18", "generic", "trixie-backports"),
        ),
        ("newest", KernelName("newest")),
        ("newest-rt", KernelName("newest", "rt")),
        ("sid-newest", KernelName("newest", suite="sid")),
    ],
)
def test_names(name, expected):
    assert KernelName.parse(name) == expected
    assert str(expected) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("6", "'6' is no name of a kernel; expected"),
        ("6.12-", "is no name of a kernel"),
        ("", "is no name of a kernel"),
        ("6.12-big", "kind big is not one of cloud, generic, rt, 16k"),
        ("potato-2.2", "suite potato is not one of bullseye, "),
    ],
)
def test_names_of_nothing(name, problem):
    with pytest.raises(UnsupportedError, match=problem):
        KernelName.parse(name)


def test_the_newest_of_a_series(archive, cache):
    for release in ("6.12.9+deb12", "6.12.117+deb12", "6.12.20+deb12"):
        archive.add(OWN, image(f"{release}-cloud-amd64"), f"{release}-1")
        archive.add(OWN, image(f"{release}-rt-amd64"), f"{release}-1")
        archive.add(OWN, image(f"{release}-amd64"), f"{release}-1")
        archive.add(OWN, image(f"{release}-amd64-dbg"), f"{release}-1")
        archive.add(OWN, image(f"{release}-cloud-amd64-unsigned"), f"{release}-1")
    for name, release in (
        ("6.12", "6.12.117+deb12-cloud-amd64"),
        ("6.12-generic", "6.12.117+deb12-amd64"),
        ("6.12-rt", "6.12.117+deb12-rt-amd64"),
    ):
        kernel = cache.kernel(name)
        assert (kernel.name, kernel.release) == (name, release)
        assert (kernel.version, kernel.suite) == ("6.12.117+deb12-1", None)
        assert kernel.folder.name == f"linux-image-{release}_6.12.117+deb12-1"


def test_a_name_that_only_a_dependency_has(archive, cache, monkeypatch):
    """apt lists it, and shows nothing of it."""
    archive.add(OWN, image("6.1.0-7-cloud-amd64"), "6.1.7-1")
    names = archive.folder / "bin/apt-cache"
    names.write_text(
        names.read_text().replace(
            "exec", '[ "$1" != pkgnames ] || echo linux-image-6.1.0-9-cloud-amd64\nexec'
        )
    )
    assert cache.kernel("6.1").release == "6.1.0-7-cloud-amd64"


def test_the_first_suite_that_has_it(archive, cache):
    archive.add("bullseye", image("5.10.0-32-cloud-amd64"))
    archive.add("trixie", image("6.12.90+deb13-cloud-amd64"))
    archive.add("trixie-backports", image("6.18.15+deb13-cloud-amd64"))
    archive.add("trixie-backports", image("6.18.9+deb13-cloud-amd64"))
    archive.add(OWN, image("6.12.80+deb12-cloud-amd64"))
    for name, release, suite in (
        ("5.10", "5.10.0-32-cloud-amd64", "bullseye"),
        ("6.12", "6.12.80+deb12-cloud-amd64", None),
        ("trixie-6.12", "6.12.90+deb13-cloud-amd64", "trixie"),
        ("6.18", "6.18.15+deb13-cloud-amd64", "trixie-backports"),
    ):
        kernel = cache.kernel(name)
        assert (kernel.release, kernel.suite) == (release, suite)


def test_a_suite_that_has_gone(archive, cache):
    del archive.suites["bullseye"]
    archive.add("trixie", image("6.17.2-cloud-amd64"))
    assert cache.kernel("6.17").suite == "trixie"
    with pytest.raises(UnsupportedError, match=r"bullseye: .*no Release file"):
        cache.kernel("5.10")


def test_the_newest_by_the_meta_package(archive, cache):
    meta = "linux-image-7.3.4+deb13-{0} (= 7.3.4-1~bpo13+1), linux-base"
    for flavour in ("cloud-amd64", "rt-amd64", "amd64"):
        depends = meta.format(flavour)
        archive.add("trixie-backports", image(flavour), "7.3.4-1", depends)
        for release in ("7.3.4+deb13", "7.3.9+deb13"):  # Not yet the meta package's.
            package = image(f"{release}-{flavour}")
            archive.add("trixie-backports", package, "7.3.4-1~bpo13+1")
    archive.add("sid", image("cloud-amd64"), "7.2-1", "linux-image-7.2-cloud-amd64")
    archive.add("sid", image("7.2-cloud-amd64"), "7.2-1")
    assert cache.kernel("newest").release == "7.3.4+deb13-cloud-amd64"
    assert cache.kernel("newest-rt").release == "7.3.4+deb13-rt-amd64"
    assert cache.kernel("newest-generic").release == "7.3.4+deb13-amd64"
    kernel = cache.kernel("sid-newest")
    assert (kernel.release, kernel.suite) == ("7.2-cloud-amd64", "sid")


def test_a_kernel_that_is_not_signed(archive, cache):
    release = "6.12.1-cloud-amd64"
    archive.add(OWN, image(f"{release}-unsigned"))
    kernel = cache.kernel("6.12")
    assert kernel.release == release
    assert kernel.package == image(f"{release}-unsigned")
    assert kernel.folder.name == f"{kernel.package}_1"


def test_an_old_kernel_whose_modules_are_gone(archive, cache):
    release = "7.1.13+deb13-cloud-amd64"
    depends = f"linux-binary-{release} (= 5), linux-modules-{release} (= 5)"
    suite = "trixie-backports"
    archive.add(suite, image(release), "5", depends)
    files = {f"boot/vmlinuz-{release}": "kernel"}
    archive.add(suite, f"linux-binary-{release}", "5", files=files)
    kernel = cache.kernel("7.1")
    assert kernel.vmlinuz.read_text() == "kernel"
    assert not kernel.has_modules
    assert Setup(kernel).modules == ()
    for get in (cache.vmlinux, cache.headers):
        with pytest.raises(MissingPackageError, match=r"no package linux-.*=5 for"):
            get(kernel)


OLD = {
    "boot/vmlinuz-6.1.0-9-cloud-amd64": "kernel",
    "lib/modules/6.1.0-9-cloud-amd64/kernel/dummy.ko": "module",
}


def test_one_package(archive, cache):
    archive.add(OWN, image("6.1.0-9-cloud-amd64"), files=OLD)
    kernel = cache.kernel("6.1")
    assert kernel.vmlinuz.read_text() == "kernel"
    assert kernel.module("dummy") == b"module"


@pytest.mark.parametrize(
    "place", ["boot/vmlinuz-{0}", "usr/lib/modules/{0}/vmlinuz"], ids=["6.19", "7.2"]
)
def test_a_package_of_parts(archive, cache, place):
    release = "7.2.12+deb13-cloud-amd64"
    modules = f"usr/lib/modules/{release}"
    parts = ("binary", "modules", "base")
    depends = ", ".join(f"linux-{part}-{release} (= 5)" for part in parts)
    suite = "trixie-backports"
    archive.add(suite, image(release), "5", f"kmod, {depends}, initramfs-tools")
    files = {place.format(release): "kernel"}
    archive.add(suite, f"linux-binary-{release}", "5", files=files)
    files = {
        f"{modules}/kernel/dummy.ko": "module",
        f"{modules}/modules.builtin": "a/b.ko",
    }
    archive.add(suite, f"linux-modules-{release}", "5", files=files)
    kernel = cache.kernel("7.2")
    assert kernel.vmlinuz.read_text() == "kernel"
    assert kernel.module("dummy") == b"module"
    assert kernel.has_builtin("b")


@pytest.mark.parametrize("pack", ["", ".xz", ".zst"])
def test_a_packed_module(tmp_path, pack):
    kernel = KernelPackage("6.1", "6.1.0-1", "1", tmp_path)
    path = tmp_path / "lib/modules/6.1.0-1/a/dummy.ko"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"module" * 99)
    if pack == ".xz":
        path.with_name("dummy.ko.xz").write_bytes(lzma.compress(path.read_bytes()))
    elif pack:
        if shutil.which("zstd") is None:
            pytest.skip("install zstd")
        subprocess.run(["zstd", "-q", str(path)], check=True)
    if pack:
        path.unlink()
    assert kernel.module("dummy") == b"module" * 99


@pytest.mark.parametrize(
    "files",
    [
        {
            "usr/lib/debug/boot/vmlinux-{0}": ELF,
            "usr/lib/debug/lib/modules/{0}/vmlinux": "-> ../../../boot/vmlinux-{0}",
        },
        {"usr/lib/debug/lib/modules/{0}/vmlinux": ELF},
    ],
    ids=["6.12", "6.19"],
)
def test_the_debug_file(archive, cache, files):
    release = "6.12.1-cloud-amd64"
    archive.add(OWN, image(release), "3", files={f"boot/vmlinuz-{release}": "x"})
    files = {name.format(release): text.format(release) for name, text in files.items()}
    archive.add(OWN, f"linux-image-{release}-dbg", "3", files=files)
    path = cache.vmlinux(cache.kernel("6.12"))
    assert path.name == f"vmlinux-{release}"
    assert path.read_text() == ELF


def test_a_debug_package_without_the_file(archive, cache):
    archive.add(OWN, image("6.12.1-cloud-amd64"))
    archive.add(OWN, "linux-image-6.12.1-cloud-amd64-dbg", files={"usr/x": ELF})
    kernel = cache.kernel("6.12")
    with pytest.raises(UnsupportedError, match=r"no file .*boot/vmlinux-6.12.1"):
        cache.vmlinux(kernel)
    # The next attempt starts anew.
    with pytest.raises(UnsupportedError, match="no file"):
        cache.vmlinux(kernel)


def test_no_suite_has_it(archive, cache):
    with pytest.raises(UnsupportedError, match=r"no kernel 4\.9 for amd64 .*sid") as e:
        cache.kernel("4.9")
    assert str(e.value).endswith("run 'apt-get update' as root")


def test_offline(archive, cache):
    """What is here already is found without a download; the rest says what to do."""
    archive.add(OWN, image("6.1.0-9-cloud-amd64"), "6.1.9-1", files=OLD)
    folder = cache.kernel("6.1").folder
    get = archive.folder / "bin/apt-get"
    get.write_text("#!/bin/sh\necho 'E: 404' >&2; exit 100\n")
    assert cache.kernel("6.1").folder == folder
    archive.add(OWN, image("6.1.0-10-cloud-amd64"), "6.1.10-1")
    with pytest.raises(UnsupportedError, match="E: 404\nif the network is up") as info:
        cache.kernel("6.1")
    assert "linux-image-6.1.0-10-cloud-amd64=6.1.10-1" in str(info.value)


def test_not_on_debian(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="apt and dpkg are not installed"):
        cache.kernel("6.1")


def test_lists_of_another_suite(archive, cache):
    """From where this machine's come, and none of its settings are touched."""
    cache.apt(X86_64, "trixie").show("base-files")
    place = cache.folder / "apt-trixie-amd64"
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    options = f"[signed-by={keys} check-valid-until=no]"
    assert (place / "sources.list").read_text().splitlines() == [
        f"deb {options} http://a.test/d/ trixie main",
        f"deb {options} http://a.test/s trixie-security main",
    ]
    *_, update, show = (archive.folder / "said").read_text().splitlines()
    for said in (update, show):
        assert f"-oDir::Etc::sourcelist={place}/sources.list" in said
        assert "-oDir::Etc::sourceparts=/dev/null" in said
        assert f"-oDir::State={place} " in said
    assert cache.apt(X86_64, "trixie").advice().endswith(f"remove {place}")


@pytest.mark.parametrize("suite", ["sid", "trixie-backports"])
def test_suites_without_security_updates_of_their_own(archive, cache, suite):
    cache.apt(AARCH64, suite).show("base-files")
    text = (cache.folder / f"apt-{suite}-arm64/sources.list").read_text()
    [line] = text.splitlines()
    assert line.endswith(f"http://a.test/d/ {suite} main")


def test_other_suites_of_a_medium(archive, cache):
    """An installer leaves the medium among the sources, and it comes first."""
    archive.fetched("Debian main file:/cdrom/", f"Debian main {MAIN}/")
    cache.apt(X86_64, "trixie").show("base-files")
    text = (cache.folder / "apt-trixie-amd64/sources.list").read_text()
    assert " http://a.test/d/ trixie main" in text
    assert "cdrom" not in text


def test_lists_that_cannot_be_fetched(archive, cache):
    """apt only warns of it; the next call fetches them."""
    archive.add(OWN, "linux-image-6.12.9-cloud-arm64")
    archive.fail(MAIN, SECURITY)
    problem = "kernel 6.12: here: apt cannot fetch lists from http://a.test/d: cannot r"
    with pytest.raises(UnsupportedError, match=problem):
        cache.kernel("6.12", AARCH64)
    assert not list(cache.folder.glob("*/updated"))
    archive.fail()
    assert cache.kernel("6.12", AARCH64).release == "6.12.9-cloud-arm64"
    archive.fail(SECURITY)
    with pytest.raises(UnsupportedError, match=r"from http://a\.test/s: cannot"):
        cache.apt(X86_64, "trixie").show("base-files")


def test_lists_that_come_from_nowhere(archive, cache):
    """Addresses are not those of the sources if these only name a list of mirrors."""
    archive.fetched()
    archive.fail("https://mirror.test/d")
    with pytest.raises(UnsupportedError, match=r"from https://mirror\.test/d: c"):
        cache.apt(AARCH64).show("base-files")


def test_old_lists_do_until_there_are_new_ones(archive, cache):
    cache.apt(AARCH64).show("base-files")
    stamp = cache.folder / "apt-arm64/updated"
    os.utime(stamp, (0, 0))
    archive.fail(MAIN)
    PackageCache(cache.folder).apt(AARCH64).show("base-files")
    assert stamp.stat().st_mtime == 0
    archive.fail("http://foreign.test/x")  # It may lack the architecture.
    PackageCache(cache.folder).apt(AARCH64).show("base-files")
    assert stamp.stat().st_mtime != 0


def test_other_suites_without_lists_of_ones_own(archive, cache):
    archive.fetched()
    with pytest.raises(UnsupportedError, match=r"no archive\nrun 'apt-get update'"):
        cache.apt(X86_64, "trixie").show("crash")


def test_kernels_that_are_built_are_of_one_architecture(cache):
    with pytest.raises(UnsupportedError, match="android is built for aarch64 only"):
        cache.kernel("android", X86_64)
