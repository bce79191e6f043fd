# SPDX-License-Identifier: GPL-2.0-or-later
"""Android's ``debug_kinfo`` in its layouts, from the tables of offsets."""

from rigs.writers import put, put_text

IMAGE = {
    "_text": 0x80000000,
    "_stext": 0x80010000,
    "_etext": 0x81000000,
    "_sinittext": 0x82000000,
    "_einittext": 0x82080000,
    "_end": 0x83000000,
    "kallsyms_names": 0x81100000,
    "kallsyms_markers": 0x81200000,
    "kallsyms_token_table": 0x81210000,
    "kallsyms_token_index": 0x81211000,
    "kallsyms_offsets": 0x81212000,
    "kallsyms_relative_base": 0x81300000,
    "kallsyms_seqs_of_names": 0x81310000,
    "swapper_pg_dir": 0x81400000,
}
_TAIL = ["offsets", "names", "token_table", "token_index", "markers"]
_SERIES = ["kallsyms_relative_base", "_text", "_stext", "_etext"]
_ANDROID = ["kallsyms_addresses", "kallsyms_relative_base", "_stext", "_etext"]
_MIDDLE = ["_sinittext", "_einittext", "_end", *(f"kallsyms_{it}" for it in _TAIL)]

_FIELDS = {
    "series": (_SERIES + _MIDDLE + ["kallsyms_seqs_of_names"], True, 472),
    "meminspect-v3": (_SERIES + _MIDDLE + ["kallsyms_seqs_of_names"], False, 216),
    "android": (_ANDROID + _MIDDLE + ["kallsyms_seqs_of_names"], True, 472),
    "android-v1": (_ANDROID + _MIDDLE, True, 464),
    "android-v2": (_ANDROID + _MIDDLE, True, 504),
}
LAYOUTS = list(_FIELDS)


def write_kinfo(
    layout: str,
    *,
    release: str = "6.12.9-android",
    build_info: str = "",
    modules: tuple[int, int, int] = (1, 0x140, 0x1A8),
    image: dict[str, int] = IMAGE,
    relative: int = 1,
) -> bytes:
    names, has_build_info, size = _FIELDS[layout]
    data = bytearray(size)
    put(data, 0, 4, 0xCCEEDDFF)
    put(data, 8, 1, 1, relative, 0, 1)
    put(data, 12, 4, 123456)
    put(data, 16, 2, 512, 64, 56, 600)
    put(data, 24, 8, *(image.get(name, 0) for name in names))
    at = 24 + 8 * len(names)
    put(data, at, 4, 16384)
    put(data, at + 4, 8, image["swapper_pg_dir"])
    put_text(data, at + 12, 64, release)
    at += 76
    if has_build_info:
        put_text(data, at, 256, build_info)
        at += 256
    put(data, at, 4, *modules)
    if layout == "android-v2":
        put(data, at + 12, 8, image["kallsyms_seqs_of_names"])
    checksum = 0
    for i in range(8, size, 4):
        checksum ^= int.from_bytes(data[i : i + 4], "little")
    put(data, 4, 4, checksum)
    return bytes(data)
