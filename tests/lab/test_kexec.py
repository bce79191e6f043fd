# SPDX-License-Identifier: GPL-2.0-or-later
"""kexec of a machine that has no apt, for a guest."""

from pathlib import Path

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.lab import X86_64, PackageCache
from kmemdump.lab.kexec import kexec_command, kexec_files

GLIBC = """\
\tlinux-vdso.so.1 (0x00007ffd5c9f2000)
\tlibz.so.1 => /lib64/libz.so.1 (0x00007f6c0a200000)
\tlibc.so.6 => /lib64/libc.so.6 (0x00007f6c0a000000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f6c0a2f5000)
"""
MUSL = """\
\t/lib/ld-musl-x86_64.so.1 (0x7f2d1a5c8000)
\tlibz.so.1 => /usr/lib/libz.so.1 (0x7f2d1a580000)
\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f2d1a5c8000)
"""


@pytest.fixture
def kexec(tmp_path, monkeypatch):
    """``kexec(text)`` returns its files, where ldd says *text* of it."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")

    def files(said: str) -> tuple[Path, ...]:
        (tmp_path / "bin").mkdir()
        for name, text in (("kexec", ""), ("ldd", f"echo '{said}'")):
            (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / "bin" / name).chmod(0o755)
        return kexec_files(PackageCache(tmp_path / "lab"), X86_64)

    return files


@pytest.mark.parametrize(
    ("said", "loader"),
    [(GLIBC, "ld-linux-x86-64.so.2"), (MUSL, "ld-musl-x86_64.so.1")],
)
def test_is_started_by_its_own_loader(said, loader, kexec):
    files = kexec(said)
    assert "libz.so.1" in [it.name for it in files]
    assert kexec_command(files) == f"/files/{loader} --library-path /files /files/kexec"


def test_has_no_loader(kexec):
    with pytest.raises(UnsupportedError, match="kexec: is not linked with glibc or m"):
        kexec("\tnot a dynamic executable")
