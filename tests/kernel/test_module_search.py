# SPDX-License-Identifier: GPL-2.0-or-later
"""Debug files of modules: where they are looked for, and which are refused."""

import gzip
import lzma
import os
import shutil
import subprocess

import pytest

from kmemdump.kernel.module_search import ModuleSearch
from rigs.built_module import build_module_file, needs_compiler
from rigs.debuginfod import server

pytestmark = needs_compiler
RELEASE = "6.12.0-of-nobody"


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return build_module_file(tmp_path_factory.mktemp("module") / "lab-net.ko")


def put(module, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return shutil.copy(module.path, path)


@pytest.mark.parametrize(
    "place",
    [
        f"usr/lib/debug/lib/modules/{RELEASE}/kernel/net/lab-net.ko",
        f"usr/lib/debug/usr/lib/modules/{RELEASE}/kernel/net/lab-net.ko.debug",
        f"lib/modules/{RELEASE}/updates/dkms/lab-net.ko",
        f"lib/modules/{RELEASE}/extra/lab_net.ko",
    ],
)
def test_the_usual_places(module, tmp_path, place):
    path = put(module, tmp_path / place)
    search = ModuleSearch(RELEASE, root=tmp_path)
    for build_id in (module.build_id, None):
        assert search.find("lab_net", build_id) == ([path], "")
    assert search.find("lab", None)[0] == []
    assert ModuleSearch("6.1", root=tmp_path).find("lab_net", None)[0] == []


@pytest.mark.parametrize(
    ("suffix", "pack"), [("xz", lzma.compress), ("gz", gzip.compress)]
)
def test_compressed(module, tmp_path, suffix, pack):
    path = tmp_path / f"lib/modules/{RELEASE}/extra/lab-net.ko.{suffix}"
    path.parent.mkdir(parents=True)
    path.write_bytes(pack(module.path.read_bytes()))
    search = ModuleSearch(RELEASE, root=tmp_path)
    assert search.find("lab_net", module.build_id) == ([path], "")


def test_by_build_id_alone(module, tmp_path):
    build_id = module.build_id
    place = f"usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug"
    path = put(module, tmp_path / place)
    search = ModuleSearch(None, root=tmp_path)
    assert search.find("whatever", build_id) == ([path], "")
    assert search.find("whatever", None)[0] == []
    given = ModuleSearch(None, [tmp_path / "usr/lib/debug"], root=tmp_path / "x")
    assert given.find("whatever", build_id) == ([path], "")


def test_what_the_user_names_comes_first(module, tmp_path):
    put(module, tmp_path / f"lib/modules/{RELEASE}/extra/lab-net.ko")
    own = put(module, tmp_path / "built/net/lab-net.ko")
    renamed = put(module, tmp_path / "renamed")
    for given, build_id in (
        (own, None),
        (tmp_path / "built", None),
        (tmp_path / "built", module.build_id),
        (renamed, module.build_id),
    ):
        search = ModuleSearch(RELEASE, [given], root=tmp_path)
        expected = renamed if given == renamed else own
        assert search.find("lab_net", build_id)[0][0] == expected


def test_a_stripped_module_is_passed_over(module, tmp_path):
    installed = put(module, tmp_path / f"lib/modules/{RELEASE}/extra/lab-net.ko")
    subprocess.run(("strip", "--strip-debug", installed), check=True)
    search = ModuleSearch(RELEASE, root=tmp_path)
    for build_id in (module.build_id, None):
        found, why = search.find("lab_net", build_id)
        assert (found, why) == ([], "no debug file in the usual places")


def test_another_build_is_named_and_not_taken(module, tmp_path):
    path = put(module, tmp_path / f"lib/modules/{RELEASE}/extra/lab-net.ko")
    found, why = ModuleSearch(RELEASE, root=tmp_path).find("lab_net", "ab" * 20)
    assert found == []
    assert f"({path}: of another build)" in why


def test_names_of_strangers_lead_nowhere(module, tmp_path):
    put(module, tmp_path / "lib/modules/evil/lab-net.ko")
    put(module, tmp_path / f"lib/modules/{RELEASE}/extra/lab-net.ko")
    for release in ("../modules/evil", f"{tmp_path}/lib/modules/evil", "..", ""):
        search = ModuleSearch(release, root=tmp_path)
        assert search.find("lab_net", None)[0] == []
    search = ModuleSearch(RELEASE, root=tmp_path)
    for name in ("extra/lab_net", "../extra/lab_net", "extra", "", "."):
        assert search.find(name, None)[0] == []


def test_what_is_no_debug_file(tmp_path):
    folder = tmp_path / f"lib/modules/{RELEASE}"
    for name in ("a", "b", "c", "d"):
        (folder / name).mkdir(parents=True)
    (folder / "a/lab.ko").write_bytes(b"no ELF file")
    (folder / "b/lab.ko").write_bytes(b"\x7fELF" + bytes(60))
    os.mkfifo(folder / "c/lab.ko")  # drgn would wait for a writer.
    (folder / "d/lab.ko").mkdir()
    (folder / "lab.ko").symlink_to(folder / "nothing")
    search = ModuleSearch(RELEASE, root=tmp_path)
    for build_id in ("ab" * 20, None):
        assert search.find("lab", build_id)[0] == []


@pytest.mark.skipif(shutil.which("debuginfod-find") is None, reason="needs debuginfod")
def test_debuginfod(module, tmp_path):
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "DEBUGINFOD_CACHE_PATH": str(tmp_path / "cache"),
    }
    with server(module.path) as (url, asked):
        named = {**environ, "DEBUGINFOD_URLS": url}
        search = ModuleSearch(RELEASE, environ=named, root=tmp_path)
        [found], _ = search.find("lab_net", module.build_id)
        assert found.read_bytes() == module.path.read_bytes()
        assert asked == [f"/buildid/{module.build_id}/debuginfo"]
        nothing, why = search.find("lab_net", "ab" * 20)
        assert nothing == []
        assert "nor by debuginfod: " in why
        assert "which a server gave for it" in why
        # Without a build id, or if the user named no server, nobody is asked.
        before = len(asked)
        assert search.find("lab_net", None)[0] == []
        for silent in (environ, None):
            search = ModuleSearch(RELEASE, environ=silent, root=tmp_path)
            assert search.find("lab_net", module.build_id)[0] == []
        assert len(asked) == before
