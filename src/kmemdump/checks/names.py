# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a person names to what is checked."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from kmemdump.errors import TargetError, UsageError
from kmemdump.targets.live import NAME
from kmemdump.text import shell_command
from kmemdump.watch.sources.all import describe_places, find_sources
from kmemdump.watch.sources.domains import TRYING_AGAIN

__all__ = ["find_targets"]

_PATIENCE = 15.0
"""Seconds in which it must be known which VMs there are."""
_POLL = 0.05


def find_targets(
    specs: Sequence[str],
    libvirt: Sequence[str] = (),
    names: Sequence[str] = (),
    metadata: Sequence[str] = (),
) -> list[str]:
    """
    Return the targets to check, each once.

    The parameters are those of
    :func:`~kmemdump.watch.sources.all.find_sources`; ``live`` is this machine, and so
    is nothing at all.

    :raises UsageError: If they make no sense, or one names a file.
    :raises TargetError: If there is no such VM.
    :raises UnsupportedError: If libvirt's Python module is missing.
    """
    others = [spec for spec in specs if spec != NAME]
    found = [NAME] if len(others) < len(specs) or not (specs or libvirt) else []
    for spec in others:
        if os.path.isfile(spec.removeprefix("file:")):
            raise UsageError(
                f"{spec}: is a file, expected a VM, a folder of sockets, or live\n"
                f"this says what is in it: {shell_command('kmemdump', 'info', spec)}"
            )
    if others or libvirt or names or metadata:
        found += _find_vms(others, libvirt, names, metadata)
    return list(dict.fromkeys(found))


def _find_vms(
    specs: Sequence[str],
    libvirt: Sequence[str],
    names: Sequence[str],
    metadata: Sequence[str],
) -> list[str]:
    sources = find_sources(specs, libvirt, names, metadata)
    messages: list[str] = []
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            vms = sources.vms()
            messages += sources.messages()
            if sources.settled or time.monotonic() > deadline:
                break
            time.sleep(_POLL)
    finally:
        sources.close()
    if not vms:
        asked = describe_places(specs, libvirt)
        why = f"; {messages[-1]}".removesuffix(TRYING_AGAIN) if messages else ""
        raise TargetError(f"{asked}: no VM is there{why}")
    return [vm.spec for vm in vms]
