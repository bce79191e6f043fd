# SPDX-License-Identifier: GPL-2.0-or-later
"""
What libvirt does with a domain whose guest reports a panic.

Unless it was told otherwise, libvirt ends QEMU at once then, and the dead kernel's
memory with it. While a domain is watched, it is told to keep it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from xml.etree import ElementTree

from kmemdump.targets.libvirt.connection import load_libvirt

__all__ = ["crash_action", "keep_when_dead", "restore_crash_action"]

_ENDING = {"destroy": 0, "restart": 1}
"""Actions that end QEMU or reset it: ``virDomainLifecycleAction``, by their XML."""


def keep_when_dead(domain: Any) -> str:
    """
    Have libvirt keep a running domain after a panic, until it is started anew.

    :param domain: libvirt's.
    :return: What it was to do, or an empty string if nothing had to be changed.
    :raises libvirt.libvirtError: If libvirt refuses.
    """
    libvirt = load_libvirt()
    action = crash_action(domain.XMLDesc(0))
    if action not in _ENDING:
        return ""
    domain.setLifecycleAction(
        libvirt.VIR_DOMAIN_LIFECYCLE_CRASH,
        libvirt.VIR_DOMAIN_LIFECYCLE_ACTION_PRESERVE,
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
    return action


def restore_crash_action(domain: Any, action: str) -> None:
    """Undo :func:`keep_when_dead`, unless the domain has ended or changed meanwhile."""
    libvirt = load_libvirt()
    with suppress(libvirt.libvirtError):
        if crash_action(domain.XMLDesc(0)) == "preserve":
            domain.setLifecycleAction(
                libvirt.VIR_DOMAIN_LIFECYCLE_CRASH,
                _ENDING[action],
                libvirt.VIR_DOMAIN_AFFECT_LIVE,
            )


def crash_action(xml: str) -> str:
    """Return a domain's ``<on_crash>``; libvirt's default if it has none."""
    try:
        return ElementTree.fromstring(xml).findtext("on_crash") or "destroy"
    except ElementTree.ParseError:
        return "destroy"
