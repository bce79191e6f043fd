# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs whose QMP sockets were named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kmemdump.errors import UsageError
from kmemdump.targets.qmp import QmpTarget

__all__ = ["SocketAddress", "SocketSource", "name_vms"]

_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A VM by its QMP socket."""

    name: str
    path: Path
    life: str = ""

    @property
    def spec(self) -> str:
        return f"qmp:{self.path}"

    def obstacle(self) -> str | None:
        return None

    def connect(self, timeout: float) -> QmpTarget:
        return QmpTarget(self.path, timeout)


class SocketSource:
    """
    Sockets named by the user.

    :param specs: Paths, with or without ``qmp:``.
    :raises UsageError: If a socket is given twice.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        self._vms = [SocketAddress(*item) for item in name_vms(specs).items()]

    def vms(self) -> Sequence[SocketAddress]:
        return self._vms

    def messages(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        """Nothing is open."""


def name_vms(sockets: Sequence[str]) -> dict[str, Path]:
    """
    Return the absolute path of each socket by the shortest unique name of its VM.

    :param sockets: Paths, with or without ``qmp:``.
    :raises UsageError: If a socket is given twice.
    """
    paths = [Path(spec.removeprefix("qmp:")).absolute() for spec in sockets]
    if len(set(paths)) < len(paths):
        raise UsageError("a socket is named twice, expected each VM once")
    longest = max((len(path.parts) for path in paths), default=0)
    for depth in range(1, longest + 1):
        names = [_name(path, depth) for path in paths]
        if len(set(names)) == len(names):
            break
    else:
        names = [f"{_name(path, longest)}-{i}" for i, path in enumerate(paths, 1)]
    return dict(zip(names, paths, strict=True))


def _name(path: Path, depth: int) -> str:
    """Return the last *depth* parts of a path as a part of a file's name."""
    parts = [*path.parts[-depth:-1], path.stem or path.name]
    name = "-".join(part.strip("/") for part in parts)
    clean = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
    return clean.strip("-.")[-_MAX_NAME:] or "vm"
