# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines of a log's stack trace, judged by addr2line."""

import re
import shutil
import subprocess

import pytest

from kmemdump.errors import TargetError
from kmemdump.report.records import TraceEntry
from kmemdump.report.source_lines import add_source_lines

SOURCE = """\
void ud(int x) { volatile int y = x; (void) y; }

int outer(int x)
{
\tud(x);
\tx++;
\tud(x + 1);
\treturn x;
}
int _start(void) { return outer(1); }
"""


@pytest.fixture(scope="module")
def vmlinux(tmp_path_factory):
    if not shutil.which("gcc") or not shutil.which("addr2line"):
        pytest.skip("needs gcc and addr2line")
    folder = tmp_path_factory.mktemp("vmlinux")
    (folder / "a.c").write_text(SOURCE)
    options = (
        "-g",
        "-O0",
        "-falign-functions=64",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-fno-pic",
    )
    # Where a kernel is: its addresses are negative.
    options += ("-mcmodel=kernel", "-Wl,-Ttext-segment=0xffffffff81000000")
    subprocess.run(["gcc", *options, "a.c", "-o", "vmlinux"], cwd=folder, check=True)
    return folder / "vmlinux"


def symbols(vmlinux):
    """Addresses and sizes, which reach to the next symbol, as the kernel prints them."""
    shown = subprocess.run(
        ["nm", "-n", vmlinux], capture_output=True, check=True, text=True
    ).stdout
    found = [
        (int(start, 16), name) for start, _, name in map(str.split, shown.splitlines())
    ]
    ends = [start for start, _ in found[1:]] + [found[-1][0]]
    return {name: (at, end - at) for (at, name), end in zip(found, ends, strict=True)}


def code_size(vmlinux, name):
    shown = subprocess.run(
        ["nm", "-S", vmlinux], capture_output=True, check=True, text=True
    ).stdout
    return int(re.search(rf"^\w+ (\w+) T {name}$", shown, re.M)[1], 16)


def line_of(vmlinux, address):
    shown = subprocess.run(
        ["addr2line", "-e", vmlinux, f"{address:#x}"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return re.match(r".*?([^/]+:\d+)", shown)[1]


def test_each_line_is_addr2lines(vmlinux):
    start, printed = symbols(vmlinux)["outer"]
    size = code_size(vmlinux, "outer")
    assert printed > size  # There is something between it and the next function.
    trace = [TraceEntry("outer", offset, printed) for offset in range(1, size)]
    found, losses = add_source_lines(trace, vmlinux)
    assert losses == []
    # Where it failed is exact; a return address is behind the call.
    addresses = [start + 1, *(start + offset - 1 for offset in range(2, size))]
    for entry, address in zip(found, addresses, strict=True):
        assert entry.source.endswith(line_of(vmlinux, address))
    assert len({entry.source for entry in found}) > 3


def test_what_gets_no_line(vmlinux):
    _, size = symbols(vmlinux)["outer"]
    trace = (
        TraceEntry("outer", 1, size, "a_module"),
        TraceEntry("outer", None, None),
        TraceEntry("outer", 1, size, source="given.c:1"),
        TraceEntry("unknown", 1, 2),
    )
    assert add_source_lines(trace, vmlinux) == (trace, [])


def test_a_vmlinux_of_another_build(vmlinux):
    _, size = symbols(vmlinux)["outer"]
    for other in (size + 16, code_size(vmlinux, "outer")):
        trace = (TraceEntry("outer", 1, other),)
        found, (loss,) = add_source_lines(trace, vmlinux)
        assert found == trace
        assert loss.what == "the source lines of outer"
        assert "another build" in loss.why


def test_files_that_are_none(tmp_path):
    file = tmp_path / "x"
    with pytest.raises(TargetError, match="No such file"):
        add_source_lines((), file)
    file.write_bytes(b"no")
    with pytest.raises(TargetError, match="is no ELF file"):
        add_source_lines((), file)
    file.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(TargetError, match=str(file)):
        add_source_lines((), file)
