# SPDX-License-Identifier: GPL-2.0-or-later
"""A file comes out of a package whole, or not at all."""

import subprocess
from contextlib import nullcontext

import pytest

from kmemdump.errors import OutputError, UnsupportedError
from kmemdump.lab import KernelPackage, PackageCache
from kmemdump.lab.apt import Apt
from kmemdump.lab.deb_file import extract_file
from rigs.fake_archive import build
from rigs.full_disk import mounted_tmpfs, needs_root

RELEASE = "6.12.1-cloud-amd64"
PLACE = f"usr/lib/debug/boot/vmlinux-{RELEASE}"
TEXT = "\x7fELF" + 20_000_000 * "x"


@pytest.fixture(scope="module")
def deb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        files = {PLACE: TEXT, "usr/lib/link": f"-> debug/boot/vmlinux-{RELEASE}"}
        build("a", {"version": "1", "depends": "", "files": files})
    return folder / "a.deb"


@needs_root
def test_a_full_disk(deb, tmp_path, monkeypatch):
    monkeypatch.setattr(Apt, "downloaded", lambda *_: nullcontext(deb))
    with mounted_tmpfs(tmp_path, 8 << 20) as disk:
        cache = PackageCache(disk / "lab")
        kernel = KernelPackage("6.12", RELEASE, "1", tmp_path)
        problem = r"a\.deb: cannot be unpacked: No space left"
        for _ in range(2):  # The next attempt starts anew.
            with pytest.raises(OutputError, match=problem):
                cache.vmlinux(kernel)
        hidden = [path.name for path in cache.folder.iterdir()]
        assert all(name.startswith(".") for name in hidden)


def test_the_regular_file_is_taken(deb, tmp_path):
    assert extract_file(deb, ("./usr/lib/link", f"./{PLACE}"), tmp_path / "it")
    assert (tmp_path / "it").read_text() == TEXT
    assert not extract_file(deb, ("./usr/lib/link",), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_damaged_package(deb, tmp_path):
    short = tmp_path / "short.deb"
    # Uncompressed, so that it ends within the file.
    argv = ["dpkg-deb", "--build", "-Znone", deb.with_name("tree"), short]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    with open(short, "r+b") as file:
        file.truncate(10_000_000)
    with pytest.raises(UnsupportedError, match=r"short\.deb: is damaged"):
        extract_file(short, (f"./{PLACE}",), tmp_path / "it")
