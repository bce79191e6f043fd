# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones of ramoops."""

from rigs.writers import put


def write_zone(
    text: bytes, size: int, *, start: int = 0, kind: int = 0, parity: int = 0
) -> bytes:
    """A zone of *size* bytes with *text*, oldest first, *parity* bytes not counted."""
    data = bytearray(size)
    assert len(text) <= size - 12 - parity
    put(data, 0, 4, 0x43474244 ^ kind, start, len(text))
    split = len(text) - start
    data[12 + start : 12 + len(text)] = text[:split]
    data[12 : 12 + start] = text[split:]
    return bytes(data)


def add_parity(zone: bytes, parity: int) -> bytes:
    """Fill in the parity of a zone whose last bytes have room for it."""
    data = bytearray(zone)
    room = len(zone) - 12
    blocks = -(-(room - parity) // (128 + parity))
    ring = room - (blocks + 1) * parity
    for i in range(blocks):
        end = min(12 + 128 * (i + 1), 12 + ring)
        at = 12 + ring + i * parity
        data[at : at + parity] = _encode(data[12 + 128 * i : end], parity)
    data[len(zone) - parity :] = _encode(data[:12], parity)
    return bytes(data)


def _times(a: int, b: int) -> int:
    """Multiply in the field of 256 elements, modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a, b = a << 1 ^ (0x11D if a & 0x80 else 0), b >> 1
    return product


def _encode(data: bytes | bytearray, parity: int) -> bytes:
    """Divide by the polynomial whose roots are the first powers of 2."""
    generator, root = [1], 1
    for _ in range(parity):
        shifted = [*generator, 0]
        scaled = [0, *(_times(root, it) for it in generator)]
        generator = [a ^ b for a, b in zip(shifted, scaled, strict=True)]
        root = _times(root, 2)
    rest = [*data, *bytes(parity)]
    for i in range(len(data)):
        factor = rest[i]
        for j, it in enumerate(generator):
            rest[i + j] ^= _times(factor, it)
    return bytes(rest[len(data) :])


PANIC = b"====1700000000.25-D\nPanic#1 Part1\n<0>[    1.5] Kernel panic\n"


def write_ramoops(parity: int = 0) -> bytes:
    """Two zones for panics, of which one is empty, and a console."""
    room = 480 if parity else 0
    zones = [
        write_zone(PANIC, 4096, parity=room),
        write_zone(b"", 4096),
        write_zone(b"the first words\nthe last words\n", 4096, start=15, parity=room),
    ]
    return b"".join(add_parity(it, parity) if parity else it for it in zones)
