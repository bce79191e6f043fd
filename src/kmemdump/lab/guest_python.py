# SPDX-License-Identifier: GPL-2.0-or-later
"""
Python with kmemdump for a guest: this machine's, or Debian's for another architecture.

The interpreter, its library and the packages that kmemdump needs are in an ext4 image,
which a guest mounts as a disk; they change seldom. kmemdump itself is in the guest's
initramfs, so that a change of it needs no new image.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distribution
from importlib.resources import files
from pathlib import Path

from kmemdump.bounds.start import OWN_PYTHON
from kmemdump.formats.cpio import Entry
from kmemdump.lab import cross_python
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.commands import run
from kmemdump.lab.cross_python import build_drgn, unpack_python
from kmemdump.lab.packages import PackageCache
from kmemdump.lab.shared_libraries import libraries

__all__ = ["kmemdump_entries", "python_image"]

_FOLDERS = (
    "dev",
    "etc",
    "kmemdump",
    "packages",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/bin",
)
_UNUSED = (
    "__pycache__",
    "site-packages",
    "config-*",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "ensurepip",
    "*.a",
)
_ROOM = 1.3
"""Size of the image as a multiple of the files'."""
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def python_image(
    cache: PackageCache, architecture: Architecture, more: Sequence[Path] = ()
) -> Path:
    """
    Return an ext4 image with this machine's Python and kmemdump's packages.

    To change root into it, mount it and bind :func:`kmemdump_entries` to
    ``/kmemdump``.

    :param more: Further programs, with the libraries that they need, and files of this
        machine; only for a guest of its architecture.
    :raises UnsupportedError: If this machine is of another architecture, and the tools
        to build for the guest's are missing.
    """
    packages = list(_packages("kmemdump"))
    other = platform.machine() != architecture.name
    drgn = build_drgn(cache, architecture) if other else Path()
    made_of = [sys.version, *(f"{item.name}-{item.version}" for item in packages)]
    made_of += [f"{path} {path.stat().st_mtime_ns}" for path in more]
    source = Path(__file__).read_bytes() + Path(cross_python.__file__).read_bytes()
    digest = hashlib.sha256(source + "\n".join(made_of).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as name:
            root = Path(name)
            for path in _FOLDERS:
                (root / path).mkdir(parents=True)
            if other:
                unpack_python(cache.apt(architecture), root)
                _copy_packages(packages, root)
                shutil.copy(drgn, root / "packages")
            else:
                _fill(root, packages)
                for path in {*more, *(libraries(list(more)) if more else ())}:
                    _copy(path, root)
            _compile(root)
            _make_ext4(root, folder / "python.ext4")

    name = f"python-{digest}-{architecture.name}"
    return cache.entry(name, make) / "python.ext4"


def kmemdump_entries() -> Iterator[Entry]:
    """Yield ``kmemdump/`` for an initramfs, compiled: a guest's CPU is slow."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shutil.copytree(
            Path(str(files("kmemdump"))),
            root / "kmemdump/kmemdump",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        # The metadata hold its version.
        info = root / "kmemdump/kmemdump.dist-info"
        info.mkdir()
        metadata = distribution("kmemdump").read_text("METADATA") or ""
        (info / "METADATA").write_text(metadata)
        _compile(root)
        for path in sorted(root.rglob("*")):
            inside = str(path.relative_to(root))
            if path.is_dir():
                yield Entry(inside, stat.S_IFDIR | 0o755)
            else:
                yield Entry(inside, stat.S_IFREG | 0o644, path.read_bytes())


def _packages(name: str) -> Iterator[Distribution]:
    """Yield the packages that a package needs to run."""
    seen = {name}
    todo = [name]
    while todo:
        for requirement in distribution(todo.pop()).requires or ():
            found = _REQUIREMENT.match(requirement)
            if found is None or "extra ==" in requirement:
                continue
            wanted = found[0].lower().replace("_", "-")
            if wanted not in seen:
                seen.add(wanted)
                todo.append(wanted)
                yield distribution(wanted)


def _fill(root: Path, packages: list[Distribution]) -> None:
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(
        library,
        root / library.relative_to("/"),
        symlinks=True,
        ignore=shutil.ignore_patterns(*_UNUSED),
        ignore_dangling_symlinks=True,
    )
    interpreter = Path(sys.executable).resolve()
    _copy(interpreter, root)
    if interpreter != Path("/usr/bin/python3"):
        (root / "usr/bin/python3").symlink_to(interpreter)
    _copy_packages(packages, root)
    programs = [root / interpreter.relative_to("/"), *root.rglob("*.so")]
    for path in libraries(programs):
        _copy(path, root)


def _copy_packages(packages: list[Distribution], root: Path) -> None:
    for package in packages:
        for item in package.files or ():
            if ".." not in item.parts and "__pycache__" not in item.parts:
                target = root / "packages" / item
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(str(item.locate())), target)


def _compile(root: Path) -> None:
    # Some files of the standard library are for other versions of Python.
    argv = [*OWN_PYTHON, "-m", "compileall", "-q", "-s", str(root), "-p", "/"]
    argv += ["--invalidation-mode", "unchecked-hash", str(root)]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)


def _copy(path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def _make_ext4(root: Path, image: Path) -> None:
    size = sum(path.lstat().st_size for path in root.rglob("*"))
    blocks = int(size * _ROOM) // 1024 + 8192
    # Debian has it in a folder that only root's shell searches.
    program = shutil.which("mke2fs") or "/usr/sbin/mke2fs"
    options = [
        "-q",
        "-t",
        "ext4",
        "-O",
        "^has_journal",
        "-m",
        "0",
        "-E",
        "root_owner=0:0",
    ]
    run(program, *options, "-d", str(root), "-b", "1024", str(image), str(blocks))
