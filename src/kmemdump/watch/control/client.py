# SPDX-License-Identifier: GPL-2.0-or-later
"""Ask the watches that run on this machine, through their control sockets."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from kmemdump.errors import TargetError
from kmemdump.watch.control.server import ANSWER_SECONDS

__all__ = ["ask", "control_path", "find_watch", "refresh_all", "watches"]

_PREFIX, _SUFFIX = "watch-", ".sock"
_MAX_ANSWER = 64 << 20


def control_path(folder: Path, pid: int) -> Path:
    """Return the control socket of a watch, which is a process."""
    return folder / f"{_PREFIX}{pid}{_SUFFIX}"


def watches(folder: Path) -> Iterator[Path]:
    """Yield the control sockets of the watches that run; remove those of dead ones."""
    for path in sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}")):
        pid = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        if pid.isdigit() and os.path.exists(f"/proc/{pid}"):
            yield path
        elif pid.isdigit():
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue  # Another user's.


def ask(control: Path, **request: object) -> Mapping[str, object]:
    """
    Ask a watch.

    :raises TargetError: If it does not answer, or refuses.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(ANSWER_SECONDS + 5)
            client.connect(str(control))
            client.sendall(f"{json.dumps(request)}\n".encode())
            with client.makefile("rb") as file:
                line = file.readline(_MAX_ANSWER)
    except OSError as error:
        raise TargetError(f"{control}: {error.strerror or error}") from error
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise TargetError(f"{control}: the watch ended without an answer")
    if "error" in answer:
        raise TargetError(f"{control}: {answer['error']}")
    return answer


def find_watch(folder: Path, spec: str) -> tuple[Path, str] | None:
    """
    Find the watch of a VM.

    :param spec: The target: ``qmp:SOCKET`` and the like.
    :return: The control socket, and the VM's name there; None if no watch has it.
    """
    kind, _, place = spec.partition(":")
    address = f"{kind}:{Path(place).absolute()}" if kind == "qmp" else spec
    for path in watches(folder):
        try:
            vms = ask(path, do="status").get("vms")
        except TargetError:
            continue  # Another user's, or it has just ended.
        for vm in vms if isinstance(vms, list) else ():
            if vm.get("address") == address and vm.get("pid") is not None:
                return path, str(vm["vm"])
    return None


def refresh_all(folder: Path) -> None:
    """
    Let all VMs of all watches be looked at, one after the other.

    What cannot be looked at now stays as it is; its status says why.
    """
    for path in watches(folder):
        with suppress(TargetError):
            vms = ask(path, do="status").get("vms")
            for vm in vms if isinstance(vms, list) else ():
                with suppress(TargetError):
                    ask(path, do="refresh", vm=vm["vm"])
