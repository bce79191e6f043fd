# SPDX-License-Identifier: GPL-2.0-or-later
"""
Names of kernels in Debian's archive, and the search for them.

``6.12`` is the cloud kernel of that series, ``6.12-rt`` another kind of it,
``trixie-6.12`` that of a certain suite. ``newest`` is the kernel to which Debian's
meta package leads, ``sid-newest-rt`` that of another suite and kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kmemdump.errors import UnsupportedError
from kmemdump.lab.apt import Apt
from kmemdump.lab.commands import CommandError

__all__ = [
    "KINDS",
    "NEWEST",
    "SUITES",
    "FoundKernel",
    "KernelName",
    "base_suite",
    "find_kernel",
]

NEWEST = "newest"
"""Series of a kernel that is found by its meta package."""

SUITES = (
    "bullseye",
    "bookworm",
    "trixie",
    "trixie-backports",
    "sid",
    "experimental",
)
"""Debian's suites with kernels, oldest first. Backports keep older kernels."""

KINDS = {
    "cloud": "cloud-{architecture}",
    "generic": "{architecture}",
    "rt": "rt-{architecture}",
    "16k": "{architecture}-16k",
}
"""What Debian builds a series for: its names of that, by ours."""

_NEWEST_SUITE = "trixie-backports"
_NAME = re.compile(
    r"(?:(?P<suite>[a-z]+(?:-[a-z]+)?)-)?"
    rf"(?P<series>{NEWEST}|[0-9]+\.[0-9]+)"
    r"(?:-(?P<kind>[0-9a-z]+))?"
)


@dataclass(frozen=True, slots=True)
class KernelName:
    """A kernel as it is asked for."""

    series: str
    """The first two numbers of its version, or `NEWEST`."""
    kind: str = "cloud"
    """A key of `KINDS`."""
    suite: str | None = None
    """One of `SUITES`; None for the first that has the kernel."""

    @classmethod
    def parse(cls, name: str) -> KernelName:
        """
        Read a name: ``[SUITE-]SERIES[-KIND]``.

        :raises UnsupportedError: If it is none, or its suite or kind is unknown.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise UnsupportedError(
                f"{name!r} is no name of a kernel; expected [SUITE-]SERIES[-KIND], "
                f"for example 6.12, 6.12-rt or sid-{NEWEST}"
            )
        kind, suite = found["kind"] or "cloud", found["suite"]
        for what, value, known in (("kind", kind, KINDS), ("suite", suite, SUITES)):
            if value is not None and value not in known:
                raise UnsupportedError(
                    f"kernel {name}: {what} {value} is not one of {', '.join(known)}"
                )
        return cls(found["series"], kind, suite)

    def flavour(self, architecture: str) -> str:
        """Return how Debian's packages of an architecture end for this kind."""
        return KINDS[self.kind].format(architecture=architecture)

    def __str__(self) -> str:
        kind = None if self.kind == "cloud" else self.kind
        return "-".join(filter(None, (self.suite, self.series, kind)))


@dataclass(frozen=True, slots=True)
class FoundKernel:
    """A kernel that Debian has."""

    release: str
    """As ``uname -r`` prints it there."""
    package: str
    version: str
    """Of the package."""
    suite: str | None
    """Where it is; None for the suites of this machine."""


def base_suite(suite: str) -> str:
    """Return the suite that has everything which packages of another one need."""
    return "sid" if suite == "experimental" else suite.removesuffix("-backports")


def find_kernel(
    name: KernelName, architecture: str, apt: Callable[[str | None], Apt]
) -> FoundKernel:
    """
    Return the newest kernel of a name.

    :param architecture: Debian's name of it.
    :param apt: Returns the packages of a suite, of this machine's suites for None.
    :raises UnsupportedError: If no suite has one, or none can be asked.
    """
    troubles = []
    places = _places(name)
    for suite in places:
        try:
            for release, package in _candidates(name, architecture, apt(suite)):
                if (version := _version(apt(suite), package)) is not None:
                    return FoundKernel(release, package, version, suite)
        except CommandError as error:  # It may have gone from the archive.
            troubles.append(f"{suite or 'here'}: {error}")
    if len(troubles) == len(places):  # Mostly the same: no network.
        again = "if the network is up again, repeat the command"
        raise UnsupportedError(f"kernel {name}: {troubles[0]}\n{again}")
    advice = apt(places[0]).advice()
    asked = f"Debian has no kernel {name} for {architecture} in the suites"
    names = ", ".join(suite or "of this machine" for suite in places)
    why = f" ({'; '.join(troubles)})" if troubles else ""
    raise UnsupportedError(f"{asked} {names}{why}\n{advice}")


def _places(name: KernelName) -> tuple[str | None, ...]:
    if name.suite is not None:
        return (name.suite,)
    return (_NEWEST_SUITE,) if name.series == NEWEST else (None, *SUITES)


def _candidates(
    name: KernelName, architecture: str, apt: Apt
) -> Iterator[tuple[str, str]]:
    """Yield release and package of the kernels that lists name, newest first."""
    flavour = re.escape(name.flavour(architecture))
    given = name.series != NEWEST
    # Not "6.12" for "6.1".
    series = rf"{re.escape(name.series)}(?!\d)" if given else r"\d+\.\d+"
    image = re.compile(
        # "6.1.0-56-cloud-amd64", "6.12.117+deb12-cloud-amd64", "7.3-cloud-amd64"
        rf"linux-image-(?P<release>(?P<version>{series}[^-\s]*(?:-\d+)?)-{flavour})"
        # Where Debian signs, this is the same kernel before that.
        r"(?P<unsigned>-unsigned)?"
    )
    if not given:
        meta = apt.show(f"linux-image-{name.flavour(architecture)}")
        depends = re.search(r"^Depends: (.*)$", meta, re.MULTILINE)
        names = re.findall(r"linux-image-[^\s,]+", depends[1] if depends else "")
    else:
        names = apt.names(f"linux-image-{name.series}")
    found = list(filter(None, map(image.fullmatch, names)))

    def age(match: re.Match[str]) -> tuple[list[int], bool]:
        numbers = re.findall(r"\d+", match["version"])
        return [int(number) for number in numbers], match["unsigned"] is None

    for match in sorted(found, key=age, reverse=True):
        yield match["release"], match[0]


def _version(apt: Apt, package: str) -> str | None:
    # A name may be only that of a dependency.
    try:
        shown = apt.show(package)
    except CommandError:
        return None
    version = re.search(r"^Version: (\S+)$", shown, re.MULTILINE)
    return version[1] if version else None
