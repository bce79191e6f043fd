# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that is here already: any file that boots, or the host's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from kmemdump.errors import KmemdumpError, UnsupportedError, UsageError
from kmemdump.files import OpenFile
from kmemdump.formats.kernel_image import parse_kernel_image
from kmemdump.lab.architectures import get_architecture
from kmemdump.lab.kernel_package import KernelPackage
from kmemdump.text import shell_command

__all__ = ["find_own_image", "own_kernel"]

_MAX_FILE = 256 << 20
_ROOT = Path("/")
_COPY = "/var/tmp/vmlinuz"
_ANOTHER = "name a kernel: kmemdump demo --vmlinuz FILE [--modules DIR]"
_THEN = f"then kmemdump demo --vmlinuz {_COPY}"


def own_kernel(
    image: Path, modules: Path | None = None, *, root: Path = _ROOT
) -> KernelPackage:
    """
    Return a kernel by its image.

    :param image: A file that a boot loader starts: vmlinuz, bzImage, Image.
    :param modules: The folder of its modules, as ``/lib/modules/RELEASE``; that one if
        it is there and none is given. A guest of a kernel without modules lacks a
        network interface, and QEMU does not know its VMCOREINFO.
    :raises TargetError: If the image cannot be read.
    :raises FormatError: If it is no image.
    :raises UsageError: If *modules* has no modules.
    """
    file = OpenFile(image)
    try:
        found = parse_kernel_image(file.read(0, _MAX_FILE), file.name)
    finally:
        file.close()
    architecture = get_architecture(found.machine)
    if modules is None:
        places = (root / "lib/modules", root / "usr/lib/modules")
        there = [path / found.release for path in places]
        modules = next((path for path in there if (path / "kernel").is_dir()), None)
    elif not (modules / "kernel").is_dir():
        raise UsageError(
            f"{modules}: has no folder 'kernel', expected the modules of "
            f"{found.release}, as in /lib/modules/{found.release}"
        )
    return KernelPackage(
        str(image),
        found.release,
        "",
        image.parent,
        architecture,
        image=image,
        modules=modules,
    )


def find_own_image(release: str, root: Path = _ROOT) -> Path:
    """
    Return the image of the host's own kernel.

    :param release: As ``uname -r`` prints it here.
    :raises UnsupportedError: If it is not there, or cannot be read.
    """
    problems = []  # The first is of the likeliest place.
    for path in _places(release, root):
        try:
            if _is_readable(path) and _is_own(path, release, root):
                return path
        except UnsupportedError as error:
            problems.append(error)
    if problems:
        raise problems[0]
    raise UnsupportedError(
        f"the host's kernel {release} is neither in /boot nor in /lib/modules/"
        f"{release} (a container has its host's)\n{_ANOTHER}"
    )


def _is_own(path: Path, release: str, root: Path) -> bool:
    try:
        return own_kernel(path, root=root).release == release
    except KmemdumpError as error:
        raise UnsupportedError(
            f"{error}; no other file is the host's kernel {release}\n{_ANOTHER}"
        ) from error


def _is_readable(path: Path) -> bool:
    """
    Return whether there is a file.

    :raises UnsupportedError: If only root can say, or read it.
    """
    try:
        if not path.is_file():
            return False
    except OSError as error:
        raise UnsupportedError(
            f"{path.parent}: {error.strerror}: the host's kernel may be there\n"
            f"as root, run: install -m 644 KERNEL {_COPY}; {_THEN}"
        ) from error
    if not os.access(path, os.R_OK):
        install = shell_command("install", "-m", "644", path, _COPY)
        raise UnsupportedError(
            f"{path}: only root may read the host's kernel\n"
            f"as root, run: {install}; {_THEN}"
        )
    return True


def _places(release: str, root: Path) -> Iterator[Path]:
    """Yield where distributions put a kernel."""
    yield root / "boot" / f"vmlinuz-{release}"  # Debian, Ubuntu, Fedora, RHEL, SUSE
    for folder in ("lib/modules", "usr/lib/modules"):
        yield root / folder / release / "vmlinuz"  # Fedora, Arch, SUSE
        yield root / folder / release / "Image"  # SUSE on arm64
    yield root / "boot" / f"Image-{release}"
    # Without a release in the name: Arch, and Alpine, by the kind of kernel.
    yield from sorted((root / "boot").glob("vmlinuz-*"))
