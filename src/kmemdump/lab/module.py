# SPDX-License-Identifier: GPL-2.0-or-later
"""Build kernel modules for guests; needs gcc, make and kernel headers."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from kmemdump.errors import UnsupportedError
from kmemdump.lab import older_compiler
from kmemdump.lab.architectures import Architecture
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.lab.packages import PackageCache

__all__ = ["MODULE_NAME", "build_module", "build_modules", "find_compiler"]

MODULE_NAME = "kmemdump_lab"


def build_module(cache: PackageCache, kernel: KernelPackage) -> Path:
    """
    Return the module that makes a guest die, built for a kernel.

    :raises UnsupportedError: If the compiler or the headers are missing, or the
        compiler refuses the source.
    """
    if (built := kernel.built_module(MODULE_NAME)) is not None:
        return built
    source = Path(str(files("kmemdump.lab") / "guest"))
    sources = [source / name for name in ("Kbuild", f"{MODULE_NAME}.c")]
    return build_modules(cache, kernel, MODULE_NAME, sources) / f"{MODULE_NAME}.ko"


def build_modules(
    cache: PackageCache,
    kernel: KernelPackage,
    name: str,
    sources: Iterable[Path],
    options: Sequence[str] = (),
) -> Path:
    """
    Return a folder with modules, built for a kernel.

    :param name: Their name in messages and in the lab's folder.
    :param sources: Files with different names, except that several Kbuild files
        become one.
    :param options: For make.
    :raises UnsupportedError: If the compiler or the headers are missing, or the
        compiler refuses a source.
    """
    texts: dict[str, bytes] = {}
    for path in sources:
        texts[path.name] = texts.get(path.name, b"") + path.read_bytes()
    made_of = [*texts.values(), *(option.encode() for option in options)]
    digest = hashlib.sha256(b"".join(made_of)).hexdigest()[:12]
    headers = cache.headers(kernel)

    def make(folder: Path) -> None:
        for file, text in texts.items():
            (folder / file).write_bytes(text)
        _make(headers, folder, kernel, name, options)
        for path in folder.iterdir():
            if path.suffix == ".ko":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    return cache.entry(f"{name}-{digest}-{kernel.release}", make)


def find_compiler(arch: Architecture) -> str:
    """
    Return the name of the C compiler for an architecture.

    :raises UnsupportedError: If it is not installed.
    """
    compiler = f"{arch.compiler}gcc"
    if shutil.which(compiler) is None:
        problem = f"{compiler} is not here; install {arch.compiler_package}"
        raise UnsupportedError(problem)
    return compiler


def _make(
    headers: Path,
    folder: Path,
    kernel: KernelPackage,
    name: str,
    more: Sequence[str],
) -> None:
    # No type information, for which 6.12's build would need pahole.
    options = [f"M={folder}", "CONFIG_DEBUG_INFO_BTF_MODULES="]
    # Nor entries for ftrace: arm64's want functions aligned as GCC 14 and later do it
    # (baaf553d3bc3), and an oops in the loading of the module is the end of it.
    options.append("CC_FLAGS_FTRACE=")
    # Debian's Makefile names a version of the compiler, which need not be installed.
    arch = kernel.architecture
    compiler = find_compiler(arch)
    if kernel.suite is not None:
        compiler = f"{sys.executable} {older_compiler.__file__} {compiler}"
    options += [f"CROSS_COMPILE={arch.compiler}", f"CC={compiler}"]
    argv = ["make", "-C", str(headers), *options, *more, "modules"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as e:
        raise UnsupportedError("make is not here; install gcc and make") from e
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UnsupportedError(
            f"{name} does not build in {headers}: {lines[0] if lines else 'no output'}"
        )
