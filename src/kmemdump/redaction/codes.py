# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a byte, in a number: why it stays, or why it goes."""

__all__ = [
    "DATA",
    "IDS",
    "KEEP",
    "NETWORK",
    "SLACK",
    "STACK",
    "STATE",
    "TEXT",
    "WORDS",
]

SLACK = 0
"""No question reads it."""
WORDS = 1
"""Read with many others. Addresses and small numbers stay."""
TEXT = 2
"""Text: a policy decides."""
KEEP = 3
"""A number or a pointer that is structure, or the kernel build's own."""
DATA = 4
"""Data in a structure."""
STATE = 5
"""State of a processor, or a secret of the kernel's own."""
IDS = 6
"""The number of a user or group."""
NETWORK = 7
"""An address of a network."""
STACK = 8
"""A stack. Addresses and small numbers stay, whoever reads them."""
