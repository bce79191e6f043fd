# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines of a log's stack trace, judged by addr2line."""

import lzma
import re
import shutil
import subprocess

import pytest

from kmemdump.errors import TargetError
from kmemdump.report.records import TraceEntry
from kmemdump.report.source_lines import add_source_lines
from rigs.built_module import build_module_file, needs_compiler
from rigs.writers.elf_object import elf_object

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
    """Addresses and sizes as the kernel prints them: they reach to the next symbol."""
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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_module_file(tmp_path_factory.mktemp("module") / "a/lab.ko")


def entries_of(built):
    """Each place in two functions, the second of which is in a section of its own."""
    return [
        TraceEntry(name, offset, size, "lab")
        for name, size in (
            ("outer", built.printed_size("outer")),
            (
                "seldom",
                0x1000,
            ),  # The last one: the kernel goes on to what it puts there.
        )
        for offset in range(1, built.symbol(name)[2])
    ]


@needs_compiler
def test_each_line_of_a_module_is_addr2lines(built):
    assert built.printed_size("outer") > built.symbol("outer")[2]
    assert built.symbol("seldom")[0] == ".text.unlikely"
    trace = entries_of(built)
    found, losses = add_source_lines(trace, None, {"lab": [built.path]})
    assert losses == []
    # Where it failed is exact; a return address is behind the call.
    outer, seldom = (built.symbol(name)[2] for name in ("outer", "seldom"))
    expected = built.lines("outer", [1, *range(1, outer - 1)])
    expected += built.lines("seldom", range(seldom - 1))
    assert [entry.source.rpartition("/")[2] for entry in found] == expected
    assert len({entry.source for entry in found}) > 5


@needs_compiler
def test_the_file_whose_sizes_are_right(built, tmp_path):
    other = build_module_file(tmp_path / "lab.ko")
    trace = [TraceEntry("outer", 1, built.printed_size("outer") + 64, "lab")]
    found, (loss,) = add_source_lines(trace, None, {"lab": [other.path, built.path]})
    assert list(found) == trace
    assert loss.what == "the source lines of outer"
    assert f"in {other.path}, these have another size" in loss.why
    # What does not have the function at all says nothing against a file.
    broken = tmp_path / "broken.ko"
    broken.write_bytes(b"x")
    paths = [broken, built.path]
    found, losses = add_source_lines(entries_of(built), None, {"lab": paths})
    assert losses == []
    assert all(entry.source for entry in found)


@needs_compiler
def test_a_compressed_module(built, tmp_path):
    path = tmp_path / "lab.ko.xz"
    path.write_bytes(lzma.compress(built.path.read_bytes()))
    expected = add_source_lines(entries_of(built), None, {"lab": [built.path]})
    assert add_source_lines(entries_of(built), None, {"lab": [path]}) == expected


@needs_compiler
def test_functions_of_a_module_and_of_the_kernel_are_not_confused(vmlinux, built):
    size, other = symbols(vmlinux)["outer"][1], built.printed_size("outer")
    trace = [TraceEntry("outer", 1, size), TraceEntry("outer", 1, other, "lab")]
    found, losses = add_source_lines(trace, vmlinux, {"lab": [built.path]})
    assert losses == []
    assert ["lab.c" in entry.source for entry in found] == [False, True]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"no ELF file at all" * 9, "expected 7f 45 4c 46"),
        (b"\x7fELF\2\1\1" + bytes(57), "expected a relocatable file"),
        (elf_object({".text": 1 << 62}), "expected a module"),
        (elf_object({".text": 64}), "has no debug info"),
        (elf_object({}), "has no debug info"),
    ],
)
def test_modules_that_are_none(tmp_path, data, why):
    """The rest of a report is there, whatever a file is."""
    path = tmp_path / "lab.ko"
    path.write_bytes(data)
    trace = (TraceEntry("f", 1, 2, "lab"),)
    found, (loss,) = add_source_lines(trace, None, {"lab": [path]})
    assert found == trace
    assert loss.what == "the source lines of module lab"
    assert why in loss.why
