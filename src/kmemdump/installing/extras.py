# SPDX-License-Identifier: GPL-2.0-or-later
"""How to add an extra of pyproject.toml to the kmemdump that is running."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["describe_extra", "in_debian_package"]

_FOLDER = Path(__file__).parents[2] / "kmemdump-extras.pth"
"""
In the Debian package: names the folder whose Python packages are found, too
(debian/rules). That of the package itself belongs to dpkg, and has no pip.
"""
_LINKED = {"libvirt": "python3-libvirt"}
"""Extras that are a package of Debian's; kmemdump's has links to its modules."""
_PIPX = "pipx_metadata.json"
_ITSELF = re.compile(r"kmemdump\[(\w+)\]")
_MARKER = re.compile(r"""extra == ["'](\w+)["']""")


def in_debian_package() -> bool:
    """Return whether this is the kmemdump of the Debian package."""
    return _FOLDER.is_file()


def describe_extra(extra: str) -> str:
    """
    Return the command that installs an extra where this kmemdump finds it.

    :param extra: One of those in pyproject.toml.
    """
    if in_debian_package():
        if extra in _LINKED:
            return f"apt install {_LINKED[extra]}"
        place = shlex.quote(_FOLDER.read_text().strip())
        # Debian's pip is for Debian's Python, which the package runs on.
        return (
            "apt install python3-pip && /usr/bin/pip install --target "
            f"{place} {_packages(extra)}"
        )
    if (Path(sys.prefix) / _PIPX).is_file():
        return f"pipx inject kmemdump {_packages(extra)}"
    return f"pip install 'kmemdump[{extra}]'"


def _packages(extra: str) -> str:
    return " ".join(shlex.quote(it) for it in sorted(_requirements(extra)))


def _requirements(extra: str) -> Iterator[str]:
    from importlib import metadata  # Takes as long to load as all else here.

    for line in metadata.requires("kmemdump") or ():
        package, _, marker = line.partition(";")
        if extra not in _MARKER.findall(marker):
            continue
        if itself := _ITSELF.fullmatch(package.strip()):
            yield from _requirements(itself[1])
        else:
            yield package.strip()
