# SPDX-License-Identifier: GPL-2.0-or-later
"""What hardware and firmware reported, in words."""

from __future__ import annotations

import re

from kmemdump.diagnosis.event_block import MAX_TEXT
from kmemdump.diagnosis.log_events import Root

__all__ = ["describe_firmware_error", "describe_nmi"]

# Text that identifies an NMI, its reason, the setting that made it fatal, and a hint,
# after the functions of arch/x86/kernel/nmi.c, each of which has its own setting, and
# drivers/watchdog/hpwdt.c.
_NMIS = (
    ("IOCK", "for an error of an I/O device (IOCK)", "panic_on_io_nmi is set", ""),
    ("PCI system", "for an error on PCI (SERR)", "panic_on_unrecovered_nmi is set", ""),
    (
        "An NMI occurred",
        "from the firmware or its watchdog (hpwdt)",
        "",
        " The firmware's own log (iLO, IML) has the reason.",
    ),
    (
        "",
        "without a known reason",
        "unknown_nmi_panic is set (or panic_on_unrecovered_nmi)",
        " Most often the host or a watchdog sends one to a machine that seems dead.",
    ),
)
_SECTIONS = (
    ("memory", "memory"),
    ("PCIe", "a PCIe device"),
    ("processor", "the processor"),
    ("", "the hardware"),
)
_SEVERITY = "event severity"
_FIELD = re.compile(
    rf"({_SEVERITY}|section_type|fru_text|DIMM location|device_id|physical_address|"
    r"aer_uncor_status): *"
    r"(.{1,80}?)\s*$"
)


def describe_nmi(root: Root) -> tuple[str, str, str]:
    """Return the reason of an NMI, the setting that made it fatal, and a hint."""
    lines = [line.text for line in (*root.reason, *root.block.lines[:3])]
    said = " ".join(text[:MAX_TEXT] for text in lines)
    _, reason, setting, more = next(item for item in _NMIS if item[0] in said)
    return reason, setting, more


def describe_firmware_error(root: Root) -> str:
    """Return an error that firmware reported (ACPI's GHES) in words."""
    fields: dict[str, str] = {}
    for line in (*root.reason, *root.block.lines):
        for name, value in _FIELD.findall(line.text[:MAX_TEXT]):
            fields.setdefault(name, value.strip())
    section = fields.get("section_type", "")
    of = next(words for name, words in _SECTIONS if name.lower() in section.lower())
    if "device_id" in fields and of == "a PCIe device":
        of = f"PCIe device {fields.pop('device_id')}"
    fields.pop("section_type", None)
    usual = "fatal" if root.panic is not None else ""
    severity = fields.pop(_SEVERITY, usual)
    severe = f"a {severity} error" if severity else "an error"
    details = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in fields.items()
        if name != "aer_uncor_status"
    ]
    more = f" ({', '.join(details)})" if details else ""
    return f"Firmware reported {severe} of {of}{more}"
