# SPDX-License-Identifier: GPL-2.0-or-later
"""The README's lines that install kmemdump, in clean installations of Debian."""

import json
import re
import tempfile
import tomllib
from pathlib import Path

import pytest

from kmemdump.version import VERSION
from rigs.container_image import Container, container_of, have_buildah
from rigs.debian_package import build_package, released_source
from rigs.debian_root import DebianRoot, debian_root, have_roots

ROOT = Path(__file__).parents[2]
SUITES = ("bookworm", "trixie")

pytestmark = [
    pytest.mark.matrix,
    pytest.mark.skipif(not have_roots(), reason="needs root and debootstrap"),
]


def line_for(kind: str) -> str:
    """Return what the README has one type."""
    text = (ROOT / "README.md").read_text()
    (found,) = re.findall(rf"<!-- install: {kind} -->\n```sh\n(.*?)\n```\n", text, re.S)
    return str(found)


def home() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["urls"]["Homepage"])


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return released_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(params=SUITES)
def root(request, lab_cache):
    with debian_root(lab_cache, request.param) as made:
        yield made


def check_demo(root: DebianRoot | Container, program: str, user: str) -> None:
    """Run the demonstration, as somebody who is not root."""
    said = root.run(
        f"{program} demo --json -o demo 2>steps || {{ cat steps; exit 1; }}",
        user=user,
        folder=f"/home/{user}",
    )
    record = json.loads(said)
    assert record["complete"]
    assert record["cause"]["kind"] == "panic"
    cache = root.path / f"home/{user}/.cache/kmemdump/lab"
    assert [it for it in cache.iterdir() if it.name.startswith("linux-image-6.12")]


def check_sealing(root: DebianRoot, program: str, installer: str) -> None:
    """Seal the demonstration's core image, as the message about it says."""
    root.install("age")

    def run(command: str, user: str = "guest") -> str:
        return root.run(command, user=user, folder="/home/guest")

    run("age-keygen -o key.txt")
    seal = "capture demo/core.elf -o sealed.core --seal $(grep -o 'age1.*' key.txt)"
    said = run(f"{program} {seal} || test $? = 3")
    _, _, line = said.strip().partition("kmemdump: error: sealing needs pyrage; ")
    line = line.removeprefix("install it: ").replace("apt ", "apt-get --yes -q ")
    assert "\n" not in line
    run(line, installer)
    run(f"{program} {seal}")
    log = run(f"{program} ask demo/core.elf log")
    assert log.count("\n") > 200
    assert run(f"{program} ask sealed.core --identity key.txt log") == log


def test_pipx(root, source):
    root.install("pipx", "man-db", "qemu-system-x86", "util-linux")
    root.add_user("guest")
    root.copy(source, "/home/guest/kmemdump", owner="guest")
    root.run(line_for("pipx"), user="guest", folder="/home/guest/kmemdump")
    program = "/home/guest/.local/bin/kmemdump"
    assert VERSION in root.run(f"{program} --version", user="guest")
    found = "ls -d .local/share/pipx/venvs/kmemdump .local/pipx/venvs/kmemdump || true"
    said = root.run(found, user="guest", folder="/home/guest")
    (place,) = [line for line in said.splitlines() if line.startswith(".local")]
    page = f"/home/guest/{place}/share/man/man1/kmemdump-watch.1"
    version = root.run("pipx --version").strip().split(".")
    if [int(part) for part in version] >= [1, 3]:  # It links what man looks for.
        page = "kmemdump-watch"
    path = "PATH=/home/guest/.local/bin:$PATH MANPAGER=cat"
    assert "KMEMDUMP" in root.run(f"{path} man {page}", user="guest")
    shown = root.run("pipx runpip kmemdump show kmemdump", user="guest")
    assert f"Home-page: {home()}\n" in shown
    check_demo(root, program, "guest")
    check_sealing(root, program, installer="guest")


def check_libvirt(root: DebianRoot) -> None:
    """See libvirt's module, which is Debian's, as soon as it is there."""
    capture = "kmemdump capture libvirt:web1 -o web1.core || test $? = 3"
    said = root.run(capture, folder="/root")
    assert "its Python module is missing; install it: apt install python3-lib" in said
    root.install("python3-libvirt")
    said = root.run(capture, folder="/root")
    assert "Python" not in said
    assert "libvirt" in said


@pytest.fixture(params=SUITES)
def package(request, lab_cache, source, tmp_path) -> tuple[str, Path]:
    """A suite, and the package that is built on it."""
    return request.param, build_package(lab_cache, request.param, source, tmp_path)


def test_deb(package, lab_cache):
    suite, built = package
    with debian_root(lab_cache, suite) as root:
        root.install("bash-completion", "man-db", "qemu-system-x86", "systemd")
        before = root.files()
        root.copy(built, f"/home/kmemdump/dist/{built.name}")
        line = line_for("deb").replace("apt install", "apt-get install --yes -q")
        root.run(line, folder="/home/kmemdump")
        assert VERSION in root.run("kmemdump --version")
        # What the system finds.
        page = root.run("man -w kmemdump-watch").strip()
        assert page.endswith("man1/kmemdump-watch.1.gz")
        said = root.run(
            # Debian 13's name of the function, and Debian 12's.
            "bash -c '. /usr/share/bash-completion/bash_completion; "
            "{ _comp_load kmemdump || __load_completion kmemdump; } 2>/dev/null; "
            "complete -p kmemdump'"
        )
        assert "_kmemdump_completion" in said
        units = root.run("systemctl list-unit-files 'kmemdump*' --no-legend --root=/")
        states = dict(line.split()[:2] for line in units.strip().splitlines())
        assert states == {
            "kmemdump.service": "disabled",
            "kmemdump-kdump.service": "disabled",
            "kmemdump-kexec.service": "disabled",
            "kmemdump-watch.service": "disabled",
        }
        assert not list(root.path.glob("etc/systemd/system/*/kmemdump*"))
        # drgn is the package's own, with the plugin.
        assert "drgn 0.3" in root.run("/usr/lib/kmemdump/bin/drgn --version")
        root.add_user("guest")
        check_demo(root, "kmemdump", "guest")
        said = root.run(
            "kmemdump open --print demo/core.elf", user="guest", folder="/home/guest"
        )
        assert said.startswith("/usr/lib/kmemdump/bin/drgn ")
        check_sealing(root, "kmemdump", installer="root")
        check_libvirt(root)
        assert root.run("dpkg --verify kmemdump") == ""
        root.run("apt-get purge --yes -q kmemdump")
        left = {name for name in root.files() - before if "kmemdump" in name}
        # Nothing but what the administrator has added.
        assert {it for it in left if not it.startswith("usr/local/lib/")} == set()


@pytest.mark.skipif(not have_buildah(), reason="needs buildah")
def test_container(lab_cache, source):
    """Built as podman builds it, which takes buildah's code for it."""
    assert "podman build" in line_for("container")
    text = (ROOT / "Containerfile").read_text()
    (base,) = re.findall(r"^FROM (.*)$", text, re.M)
    assert base.endswith("/debian:13-slim")
    with (
        tempfile.TemporaryDirectory(dir=lab_cache.folder, prefix=".images-") as name,
        debian_root(lab_cache, "trixie") as root,
        container_of(source, Path(name), base, root) as image,
    ):
        (program,) = image.entry
        assert VERSION in image.run(f"{program} --version")
        assert "KMEMDUMP" in image.run("MANPAGER=cat man kmemdump-watch")
        assert image.run("id -un") == "kmemdump"
        check_demo(image, program, "kmemdump")
