# SPDX-License-Identifier: GPL-2.0-or-later
"""
Core images that only the owner of a key can read, from the moment they are written.

They are sealed with age (https://age-encryption.org), for its own keys or those of ssh,
by the package pyrage (an extra: ``seal``). What is not sealed is in memory only.
"""

from kmemdump.sealing.seal import Seal, make_seal, sealed_output
from kmemdump.sealing.unseal import NoKeyError, read_sealed, unseal, unseal_into

__all__ = [
    "NoKeyError",
    "Seal",
    "make_seal",
    "read_sealed",
    "sealed_output",
    "unseal",
    "unseal_into",
]
