# SPDX-License-Identifier: GPL-2.0-or-later
"""The archives that this machine's apt knows, and sources made of them."""

from __future__ import annotations

from urllib.parse import urlsplit

from kmemdump.errors import UnsupportedError
from kmemdump.lab.commands import run

__all__ = ["ANOTHER", "debian_address", "fetched_archives", "has_sources", "sources_of"]

ANOTHER = "another kernel, such as this machine's: kmemdump demo --vmlinuz FILE"
"""What to do where there are no kernels of Debian."""
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Keys of all releases; package debian-archive-keyring."""
_WITHOUT_SECURITY = ("bullseye", "sid", "experimental")
"""
Suites that get their security updates as any other; and one whose archive of them lists
debug files that it does not have any more.
"""


def has_sources() -> bool:
    """Return whether apt has sources at all, whatever it has fetched of them."""
    return run("apt-get", "update", "--print-uris").strip() != ""


def sources_of(release: str) -> str:
    """
    Return apt's sources for a release, from where this machine's packages come.

    :raises UnsupportedError: If these are not Debian's.
    """
    address = debian_address()
    # The lists of a release that gets no updates any more stay signed, but expire.
    options = f"[signed-by={_KEYS} check-valid-until=no]"
    lines = [f"deb {options} {address} {release} main\n"]
    # Between two updates of a release, its newest kernels are only there.
    security = fetched_archives().get("Debian-Security")
    if security and release not in _WITHOUT_SECURITY and "-" not in release:
        lines.append(f"deb {options} {security} {release}-security main\n")
    return "".join(lines)


def debian_address() -> str:
    """
    Return the address of the archive from which this machine's packages come.

    :raises UnsupportedError: If it is not Debian's.
    """
    archives = fetched_archives()
    if not archives:
        raise UnsupportedError("apt knows no archive\nrun 'apt-get update' as root")
    if "Debian" not in archives:
        raise UnsupportedError(
            f"apt's archives are of {', '.join(archives)}, not Debian's, whose kernels "
            f"are fetched\n{ANOTHER}"
        )
    return archives["Debian"]


def fetched_archives(*options: str) -> dict[str, str]:
    """
    Return the addresses of the archives whose lists were fetched, by their labels.

    :param options: For apt; without them, of this machine's own.
    """
    found: dict[str, str] = {}
    what = ("--format", "$(LABEL) $(COMPONENT) $(REPO_URI)", "Created-By: Packages")
    for line in run("apt-get", *options, "indextargets", *what).splitlines():
        label, component, address = line.split(" ", 2)
        if component != "main":
            continue
        # A medium, which names no host, has the packages of one release only.
        if label not in found or _has_host(address) > _has_host(found[label]):
            found[label] = address
    return found


def _has_host(address: str) -> bool:
    return urlsplit(address).netloc != ""
