# SPDX-License-Identifier: GPL-2.0-or-later
"""A running domain of libvirt as a target."""

from __future__ import annotations

from kmemdump.errors import UsageError
from kmemdump.targets.libvirt.channel import DEFAULT_TIMEOUT, LibvirtChannel
from kmemdump.targets.qmp import QmpTarget
from kmemdump.vmcoreinfo import VmcoreInfo

__all__ = ["open_libvirt", "split_spec"]


def split_spec(text: str) -> tuple[str, str]:
    """
    Return the URI, empty for libvirt's default, and the domain of ``URI#DOMAIN``.

    :raises UsageError: If there is no domain.
    """
    uri, mark, domain = text.partition("#")
    if not mark or "://" not in uri:
        uri, domain = "", text
    if not domain:
        raise UsageError("libvirt: no domain, expected libvirt:[URI#]DOMAIN")
    return uri, domain


def open_libvirt(
    uri: str,
    domain: str,
    timeout: float = DEFAULT_TIMEOUT,
    *,
    vmcoreinfo: VmcoreInfo | None = None,
    keep_dead: bool = False,
) -> QmpTarget:
    """
    Open a running domain.

    :param uri: libvirt's; empty for its default.
    :param domain: Name or UUID.
    :param timeout: Seconds that libvirt has for each answer.
    :param vmcoreinfo: To be used instead of the guest's own.
    :param keep_dead: Whether libvirt is to keep QEMU after a panic, as long as the
        target is open, whatever the domain's ``<on_crash>``.
    :raises UsageError: If VMs at *uri* cannot be watched from here.
    :raises UnsupportedError: If libvirt's Python module is missing, or the domain's
        architecture is not supported.
    :raises TargetError: If libvirt cannot be reached, has no such running domain, or
        its RAM cannot be read.
    """
    channel = LibvirtChannel(uri, domain, timeout, keep_dead=keep_dead)
    return QmpTarget(channel, vmcoreinfo=vmcoreinfo)
