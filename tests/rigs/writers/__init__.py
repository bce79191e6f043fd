# SPDX-License-Identifier: GPL-2.0-or-later
"""
Writers of what firmware and kernels leave, byte by byte.

They know nothing of the parsers: each field is at the place that its format's
documentation gives, so that a parser with a wrong place for it fails.
"""


def put(data: bytearray, offset: int, size: int, *values: int) -> None:
    """Put little-endian numbers of *size* bytes."""
    for i, value in enumerate(values):
        at = offset + i * size
        assert at + size <= len(data)
        data[at : at + size] = value.to_bytes(size, "little")


def put_text(data: bytearray, offset: int, size: int, text: str | bytes) -> None:
    """Put a text of at most *size* bytes, followed by zeros."""
    raw = text if isinstance(text, bytes) else text.encode()
    assert len(raw) <= size
    assert offset + size <= len(data)
    data[offset : offset + size] = raw + bytes(size - len(raw))
