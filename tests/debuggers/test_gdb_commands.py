# SPDX-License-Identifier: GPL-2.0-or-later
"""gdb's commands, in gdb, on a program that has a kernel's variables."""

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from rigs.writers.printk import RingWriter

COMMANDS = files("kmemdump.debuggers").joinpath("gdb_commands.py")
SOURCE = """
typedef struct {{ long counter; }} atomic_long_t;
struct prb_data_blk_lpos {{ unsigned long begin, next; }};
struct prb_desc {{
    atomic_long_t state_var;
    struct prb_data_blk_lpos text_blk_lpos;
}} descs[] = {{{descs}}};
struct printk_info {{
    unsigned long long seq, ts_nsec;
    unsigned short text_len;
}} infos[] = {{{infos}}};
char text[] = {{{text}}};
struct prb_desc_ring {{
    unsigned int count_bits;
    struct prb_desc *descs;
    struct printk_info *infos;
    atomic_long_t head_id, tail_id;
}};
struct prb_data_ring {{ unsigned int size_bits; char *data; }};
struct printk_ringbuffer {{
    struct prb_desc_ring desc_ring;
    struct prb_data_ring text_data_ring;
}} ring = {{
    {{{count_bits}, descs, infos, {{{head}}}, {{{tail}}}}}, {{{size_bits}, text}}
}};
struct printk_ringbuffer *prb = &ring;
"""


def build(ring: RingWriter, folder: Path) -> Path:
    """Build a program that has the ring, to be looked at and not to be run."""
    source = SOURCE.format(
        descs=",".join(
            f"{{{{{it.state << 62 | it.id}ul}},{{{it.begin}ul,{it.next}ul}}}}"
            for it in ring.descs
        ),
        infos=",".join(f"{{{it.seq},{it.time},{it.length}}}" for it in ring.descs),
        text=",".join(f"(char){byte}" for byte in ring.text),
        count_bits=ring.count_bits,
        size_bits=ring.size_bits,
        head=f"{ring.head_id}ul",
        tail=f"{ring.tail_id}ul",
    )
    (folder / "ring.c").write_text(source)
    linked = ("-nostdlib", "-no-pie", "-Wl,--entry=0", "-o", "ring", "ring.c")
    subprocess.run(["gcc", "-g", *linked], cwd=folder, check=True, timeout=60)
    return folder / "ring"


pytestmark = [
    pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}")
    for name in ("gcc", "gdb")
]


def ask_log(program: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["gdb", "-nx", "-batch", program, "-ex", f"source {COMMANDS}", "-ex", "log"],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("count", [16, 60])
@pytest.mark.parametrize("length", [8, 30])
@pytest.mark.parametrize("tight", [False, True])
def test_log_at_the_end_of_the_ring(
    tmp_path: Path, count: int, length: int, tight: bool
) -> None:
    ring = RingWriter(6, 8, tight)
    written = [f"{i:03}".ljust(length, "x") for i in range(count)]
    for text in written:
        assert ring.write(text) is not None
    program = build(ring, tmp_path)
    texts = [line.partition("] ")[2] for line in ask_log(program).stdout.splitlines()]
    assert len(texts) >= 256 // (16 + length) - 1
    assert texts == written[-len(texts) :]


@pytest.mark.parametrize("field", ["count_bits", "size_bits"])
def test_a_ring_that_no_kernel_has(tmp_path: Path, field: str) -> None:
    """Its records would be read for years."""
    ring = RingWriter(6, 8, False)
    setattr(ring, field, 40)
    done = ask_log(build(ring, tmp_path))
    assert "the log is damaged: 2^" in done.stderr
    assert done.stdout == ""
