# SPDX-License-Identifier: GPL-2.0-or-later
"""
What libvirt keeps about a domain for people and programs, to choose domains by.

Title and description are what a person wrote. Below ``<metadata>`` each program has an
element of its own: virt-install and virt-manager one with the guest's operating system,
OpenStack ``<nova:instance>``, KubeVirt ``<kubevirt>``, oVirt ``<vm>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from xml.etree import ElementTree

from kmemdump.errors import UsageError

__all__ = ["MetadataFilter"]

_MAX_XML = 4 << 20
"""Characters in the description of a domain."""


@dataclass(frozen=True, slots=True)
class MetadataFilter:
    """
    Chooses domains by one value.

    ``title`` and ``description`` are the domain's. Any other key is the name of an
    element below ``<metadata>``, without its namespace's prefix, with as many of the
    elements around it as are wanted, and after ``@`` one of its attributes:
    ``owner/project``, ``flavor@name``.
    """

    path: tuple[str, ...]
    attribute: str
    pattern: str
    """What the value must match: a pattern with ``*``, ``?`` and ``[…]``."""

    @classmethod
    def parse(cls, text: str) -> MetadataFilter:
        """
        Parse ``KEY=VALUE``.

        :raises UsageError: If it is none.
        """
        key, equals, value = text.partition("=")
        path, at, attribute = key.strip().partition("@")
        names = tuple(path.split("/"))
        if not equals or not all(names) or (at and not attribute):
            raise UsageError(
                f"--metadata {text!r}: expected KEY=VALUE, for example title=web*, "
                "owner/project=shop or flavor@name=m1.small"
            )
        return cls(names, attribute, value)

    def accepts(self, xml: str) -> bool:
        """Return whether a domain has a value that matches, by its description."""
        if len(xml) > _MAX_XML:
            return False
        try:
            domain = ElementTree.fromstring(xml)
        except ElementTree.ParseError:
            return False
        return any(fnmatchcase(value, self.pattern) for value in self._values(domain))

    def _values(self, domain: ElementTree.Element) -> Iterator[str]:
        if len(self.path) == 1 and self.path[0] in ("title", "description"):
            found = domain.findall(self.path[0])
        else:
            found = [
                element
                for metadata in domain.findall("metadata")
                for element in _elements_at(metadata, self.path)
            ]
        for element in found:
            if not self.attribute:
                yield (element.text or "").strip()
            yield from (
                value
                for name, value in element.attrib.items()
                if self.attribute and _local(name) == self.attribute
            )


def _elements_at(
    root: ElementTree.Element, path: Sequence[str]
) -> Iterator[ElementTree.Element]:
    """Yield the elements at any depth whose own and outer names end like *path*."""
    stack: list[tuple[ElementTree.Element, tuple[str, ...]]] = [(root, ())]
    while stack:
        element, outer = stack.pop()
        for child in element:
            names = (*outer, _local(child.tag))
            if names[-len(path) :] == tuple(path):
                yield child
            stack.append((child, names))


def _local(name: str) -> str:
    """Return a name without its namespace."""
    return name.rpartition("}")[2]
