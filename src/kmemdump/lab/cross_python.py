# SPDX-License-Identifier: GPL-2.0-or-later
"""
Python for a guest of another architecture: Debian's, with drgn cross-compiled for it.

drgn's wheels are for x86_64 only, so pip fetches its source and the cross compiler
builds it; all other packages that kmemdump needs are pure Python.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from kmemdump.bounds.start import OWN_PYTHON
from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import Apt
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.commands import run
from kmemdump.lab.module import find_compiler
from kmemdump.lab.packages import PackageCache

__all__ = ["build_drgn", "unpack_python"]

_MODULE = "_drgn.so"
_PYTHON = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libgomp1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libreadline8",
    "libtinfo6",
    "libuuid1",
    "libbz2-1.0",
    "liblzma5",
    "libelf1",
    "libdw1",
)
_BUILD = (
    "libelf-dev",
    "libelf1",
    "libdw-dev",
    "libdw1",
    "zlib1g-dev",
    "zlib1g",
    "liblzma-dev",
    "liblzma5",
    "libbz2-dev",
    "libbz2-1.0",
    "libpython3.11-dev",
    "libpython3.11",
    "libexpat1",
)


def unpack_python(apt: Apt, root: Path) -> None:
    """
    Unpack Debian 12's Python, with what it and drgn need, into *root*.

    :raises UnsupportedError: If it cannot be downloaded.
    """
    for package in _PYTHON:
        apt.unpack(package, root)
    (root / "usr/bin/python3").symlink_to("python3.11")


def build_drgn(cache: PackageCache, architecture: Architecture) -> Path:
    """
    Return drgn's extension module for another architecture, of the version used here.

    :raises UnsupportedError: If a package or the compiler is missing, or the compiler
        refuses the source.
    """
    find_compiler(architecture)

    def make(place: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            module = _build(cache.apt(architecture), architecture, Path(folder))
            shutil.copy(module, place / _MODULE)

    name = f"drgn-{version('drgn')}-{architecture.name}"
    return cache.entry(name, make) / _MODULE


def _build(apt: Apt, architecture: Architecture, folder: Path) -> Path:
    system, build = folder / "system", folder / "build"
    system.mkdir()
    for package in _BUILD:
        apt.unpack(package, system)
    triplet = architecture.compiler.rstrip("-")
    libraries = system / "usr/lib" / triplet
    # The build would prefer a static library, which is not relocatable.
    for path in libraries.glob("libpython*.a"):
        path.unlink()
    source = _fetch_source(folder)
    build.mkdir()
    link = f"-L{libraries} -L{system / 'lib' / triplet}"
    paths = f"-Wl,-rpath-link,{libraries}:{system / 'lib' / triplet}"
    include = f"-I{system / 'usr/include'}"
    configure = [
        str(source / "libdrgn/configure"),
        f"--host={triplet}",
        "--disable-static",
        "--enable-python-extension",
        *(f"--with-{it}=no" for it in ("debuginfod", "libkdumpfile", "pcre2")),
        "--without-lzma",
        f"CC={find_compiler(architecture)}",
        "CFLAGS=-O1",
        f"CPPFLAGS={include} {include}/{triplet}",
        f"LDFLAGS={link} {paths} -Wl,--allow-shlib-undefined",
        f"PYTHON={sys.executable}",
        f"PYTHON_CPPFLAGS={include}/python3.11 {include}",
        f"PKG_CONFIG_LIBDIR={libraries / 'pkgconfig'}",
        f"PKG_CONFIG_SYSROOT_DIR={system}",
    ]
    try:
        run(*configure, cwd=build)
        run("make", "-j2", "_drgn.la", cwd=build)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"drgn does not build for {architecture.name}: {error}\n"
            "install make, pkg-config and libc6-dev-arm64-cross"
        ) from error
    return build / ".libs" / _MODULE


def _fetch_source(folder: Path) -> Path:
    wanted = f"drgn=={version('drgn')}"
    options = ["--quiet", "--no-deps", "--no-binary=:all:"]
    run(*OWN_PYTHON, "-m", "pip", "download", *options, "-d", str(folder), wanted)
    (archive,) = folder.glob("drgn-*.tar.gz")
    run("tar", "-x", "--no-same-owner", "-f", str(archive), cwd=folder)
    return folder / archive.name.removesuffix(".tar.gz")
