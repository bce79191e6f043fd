# SPDX-License-Identifier: GPL-2.0-or-later
"""The module kmemdump: how it builds, what it does, and that a host finds its marks."""

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from drgn import (
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    TypeEnumerator,
    TypeMember,
    host_platform,
)

from kmemdump.cli import main
from kmemdump.coreimage import read_core
from kmemdump.errors import UnsupportedError
from kmemdump.kernel.attach import attach
from kmemdump.kernel.registered_regions import KernelRegion, find_kernel_regions
from kmemdump.lab import AARCH64, X86_64, build_modules
from kmemdump.opening import open_target
from kmemdump.version import VERSION

HERE = Path(__file__).parent
KMOD = HERE.parents[1] / "kmod"
SOURCES = [
    *(path for path in sorted(KMOD.iterdir()) if path.suffix in (".c", ".h")),
    *sorted(HERE.glob("*.c")),
    KMOD / "Kbuild",
    HERE / "Kbuild",
]
STRICT = ("W=1", "KCFLAGS=-Werror")


@pytest.fixture(scope="module")
def build(lab_cache, lab_kernel):
    """``build(series, architecture, *options)`` is a folder of built modules."""

    def build_it(series, architecture, *options, sources=SOURCES):
        kernel = lab_kernel(series, architecture)
        return build_modules(
            lab_cache, kernel, "kmemdump_kmod", sources, (*STRICT, *options)
        )

    return build_it


# --- Building it ----------------------------------------------------------------------


@pytest.mark.vm
@pytest.mark.parametrize("debug", ["n", "y"])
@pytest.mark.parametrize("architecture", [X86_64, AARCH64], ids=lambda it: it.name)
@pytest.mark.parametrize(
    "series",
    [
        pytest.param("6.1", marks=pytest.mark.matrix),
        "6.12",
        pytest.param("newest", marks=pytest.mark.matrix),
    ],
)
def test_builds_without_warnings(build, series, architecture, debug):
    if shutil.which(f"{architecture.compiler}gcc") is None:
        pytest.skip(f"install {architecture.compiler_package}")
    built = build(series, architecture, f"KMEMDUMP_DEBUG={debug}")
    assert (built / "kmemdump.ko").exists()


@pytest.mark.vm
def test_warnings_fail_the_build(lab_cache, lab_kernel, tmp_path):
    (tmp_path / "Kbuild").write_text("obj-m += bad.o\n")
    (tmp_path / "bad.c").write_text("#include <linux/module.h>\nint unused(void) {}\n")
    with pytest.raises(UnsupportedError, match=r"bad does not build.*bad\.c"):
        build_modules(
            lab_cache, lab_kernel("6.12"), "bad", sorted(tmp_path.iterdir()), STRICT
        )


@pytest.mark.vm
@pytest.mark.skipif(shutil.which("sparse") is None, reason="install sparse")
@pytest.mark.parametrize("debug", ["n", "y"])
def test_sparse(build, debug):
    options = (f"KMEMDUMP_DEBUG={debug}", "C=2", "CF=-Wsparse-error")
    sources = [path for path in SOURCES if path.parent == KMOD]
    build("6.12", X86_64, *options, sources=sources)


@pytest.mark.vm
@pytest.mark.matrix
@pytest.mark.skipif(shutil.which("perl") is None, reason="install perl")
def test_checkpatch(lab_cache, lab_kernel):
    script = lab_cache.headers(lab_kernel("sanitizers")) / "scripts/checkpatch.pl"
    # Out of the kernel's tree, versions are compared.
    ignored = "LINUX_VERSION_CODE,CONSTANT_COMPARISON"
    options = ("--no-tree", "--strict", "--terse", f"--ignore={ignored}")
    files = [path for path in SOURCES if path.parent == KMOD and path.suffix]
    done = subprocess.run(
        ["perl", script, *options, "--file", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


RULES = {
    r"^ +\S": "indent with tabs",
    r"[ \t]+$": "white space at the end",
    r"^\t* +\t": "a space before a tab",
    r"(?<![:\"])//(?! SPDX)": "a // comment",
    r"\b(?:if|for|while|switch)\(": "no space after a keyword",
    r"\)\{": "no space before {",
    r"^\t+\{$": "{ on a line of its own",
    r",\S(?<!,\\)(?<!,')(?<!,\")": "no space after a comma",
    r"\b(?:typedef|extern \w+ \w+\()": "typedef, or extern of a function",
    r"\bprintk\(": "printk() instead of pr_*()",
    r"\bBUG(?:_ON)?\(": "BUG()",
    r"\bsizeof \w": "sizeof without parentheses",
    r"== NULL|!= NULL": "comparison with NULL",
}
FUNCTION = re.compile(r"^[a-z][\w \t*]*[ *](\w+)\([^;]*?\)\n\{\n(.*?)^\}", re.M | re.S)


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.suffix in (".c", ".h")], ids=lambda p: p.name
)
def test_kernel_style(path):
    text = path.read_text()
    lines = text.splitlines()
    assert lines[0].startswith(
        ("// SPDX" if path.suffix == ".c" else "/* SPDX") + "-License-Identifier: GPL-2"
    )
    for number, line in enumerate(lines[1:], 2):
        # A message that people look for is on one line.
        width = 100 if '"' in line else 80
        assert len(line.expandtabs(8)) <= width, f"{path.name}:{number}: too long"
        code = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line)
        if code.lstrip().startswith(("*", "/*")):
            assert not re.search(r"[ \t]+$", line), f"{path.name}:{number}"
            continue
        for rule, problem in RULES.items():
            assert not re.search(rule, code), f"{path.name}:{number}: {problem}"
    for name, body in FUNCTION.findall(text):
        assert body.count("\n") <= 70, f"{path.name}: {name}() is long"
    if path.parent == KMOD and path.suffix == ".c":
        exported = re.findall(r"EXPORT_SYMBOL\w*\((\w+)\)", text)
        for name in exported:
            if f"{name}(" in text:
                assert f" * {name}() - " in text, f"{name} has no kernel-doc"


def test_style_test_finds_something():
    for bad in ("    int x;", "\tif(x)", "int x; ", "\treturn x;// no", "\tf(a,b);"):
        assert any(re.search(rule, bad) for rule in RULES), bad


def test_kernel_doc_of_every_function_says_the_context():
    text = (KMOD / "core.c").read_text()
    for name in re.findall(r"EXPORT_SYMBOL_GPL\((kmemdump_\w*register\w*)\)", text):
        comment = re.search(rf"/\*\*\n \* {name}\(\)(.*?)\*/", text, re.DOTALL)
        assert comment, name
        assert "Context:" in comment[1], name
        assert "Return:" in comment[1], name


def test_dkms_names_every_file(tmp_path):
    makefile = (KMOD / "Makefile").read_text()
    listed = re.search(r"^FILES := (.*)$", makefile, re.MULTILINE)[1].split()
    there = {p.name for p in KMOD.iterdir() if p.suffix in (".c", ".h", ".conf")}
    assert set(listed) == there | {"Kbuild", "Makefile"}
    conf = subprocess.run(
        ["bash", "-c", ". ./dkms.conf; echo $PACKAGE_VERSION ${BUILT_MODULE_NAME[@]}"],
        cwd=KMOD,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert conf[0] == VERSION
    assert [f"{name}.o" for name in conf[1:]] == re.search(
        r"^obj-m \+= (.*)$", (KMOD / "Kbuild").read_text(), re.MULTILINE
    )[1].split()


@pytest.mark.vm
@pytest.mark.skipif(os.geteuid() != 0, reason="DKMS wants root")
@pytest.mark.parametrize(
    "series", [pytest.param("6.1", marks=pytest.mark.matrix), "6.12"]
)
def test_dkms_installs_it(lab_cache, lab_kernel, tmp_path, series):
    if missing := {it for it in ("dkms", "pahole") if shutil.which(it) is None}:
        pytest.skip(f"install {', '.join(sorted(missing))}")
    kernel = lab_kernel(series)
    modules = tmp_path / "modules" / kernel.release
    modules.mkdir(parents=True)
    (tmp_path / "dkms").mkdir()
    # --no-depmod: of all the kernel's modules, nothing but ours is there.
    dkms = (
        f"dkms --no-depmod -k {kernel.release} --dkmstree {tmp_path}/dkms "
        f"--sourcetree {tmp_path}/usr/src --installtree {modules.parent} "
        f"--kernelsourcedir {lab_cache.headers(kernel)}"
    )
    argv = ["make", "install", f"DESTDIR={tmp_path}", f"DKMS={dkms}"]
    done = subprocess.run(argv, cwd=KMOD, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    installed = {path.name: path for path in modules.rglob("*.ko*")}
    assert set(installed) == {"kmemdump.ko", "kmemdump_sample.ko"}
    for path in installed.values():
        assert path.parent == modules / "updates/dkms"
        assert f"vermagic={kernel.release} ".encode() in path.read_bytes()


# --- At work --------------------------------------------------------------------------


@pytest.fixture(
    scope="module",
    params=[X86_64, pytest.param(AARCH64, marks=pytest.mark.matrix)],
    ids=lambda it: it.name,
)
def machine(request, snapshots, make_setup, build):
    """A machine with a debug build of the module, and the test's own modules."""
    built = build("6.12", request.param, "KMEMDUMP_DEBUG=y")
    setup = make_setup(
        "6.12",
        architecture=request.param,
        files=tuple(sorted(built.glob("*.ko"))),
        tasks=5,
    )
    with snapshots.machine(setup) as machine:
        machine.run("insmod /files/kmemdump.ko")
        yield machine


def marks(machine):
    """Look at the machine from outside, as a host does."""
    target = open_target(f"qmp:{machine.qmp}")
    try:
        return find_kernel_regions(attach(target).prog)
    finally:
        target.close()


@pytest.mark.vm
def test_region_of_a_driver_is_in_the_core_image(machine, tmp_path):
    assert marks(machine) == []
    machine.run("insmod /files/kmemdump_sample.ko")
    say = "/sys/module/kmemdump_sample/parameters/say"
    machine.run(
        f"i=1000; while [ $i -lt 4000 ]; do echo -n line$i >{say}; i=$((i+1)); done",
        timeout=300,
    )
    lines = "".join(f"line{i}" for i in range(1000, 4000)).encode()
    size = 4 * 4096
    ring = bytearray(size)
    for at in range(0, len(lines), size):
        piece = lines[at : at + size]
        ring[: len(piece)] = piece

    core = tmp_path / "core"
    options = ["--area", "kernel", "--area", "symbols"]
    assert main(["capture", f"qmp:{machine.qmp}", "-o", str(core), *options]) == 0
    with read_core(core) as image:
        pieces = {
            int(region.name.partition("+")[2] or "0", 16): image.memory.read(
                region.address, region.size
            )
            for region in image.manifest.regions
            if region.name.partition("+")[0] == "sample_ring"
        }
        assert b"".join(pieces[at] for at in sorted(pieces)) == ring
        (state,) = (r for r in image.manifest.regions if r.name == "sample_state")
        written, held, _ = struct.unpack(
            "<3Q", image.memory.read(state.address, state.size)
        )
        assert (written, held) == (len(lines), size)
        kernel = next(area for area in image.manifest.areas if area.name == "kernel")
        asked = [question.text.split()[::2] for question in kernel.questions]
        assert asked[1:] == [
            ["kmemdump_table", "sample_state"],
            ["kmemdump_table", "sample_ring"],
        ]
    # In the core image its names still lead there.
    target = open_target(str(core))
    prog = attach(target).prog
    found = {mark.name: mark for mark in find_kernel_regions(prog)}
    assert prog.read(found["sample_ring"].address, size) == ring
    target.close()
    machine.run("rmmod kmemdump_sample")
    assert marks(machine) == []


@pytest.mark.vm
def test_tables_of_the_series(machine):
    machine.run("insmod /files/kmemdump_series.ko")
    target = open_target(f"qmp:{machine.qmp}")
    prog = attach(target).prog
    found = {
        (mark.table, mark.id, mark.name): prog.read(mark.address, mark.size)
        for mark in find_kernel_regions(prog)
    }
    target.close()
    assert found == {
        ("kmemdump_idr", 0, "text_v1"): b"marked by RFC v1\0",
        ("kmemdump_zones", 7, "id7"): b"marked by RFC v2\0",
        ("inspect_entries", 44, "id44"): b"marked by meminspect\0",
        (".inspect_table", 11, "id11"): b"marked in .inspect_table\0",
    }
    machine.run("rmmod kmemdump_series")


@pytest.mark.vm
def test_many_threads_while_a_host_reads(machine):
    # Loading it checks what each function returns.
    machine.run("insmod /files/kmemdump_stress.ko leave=1")
    rounds = "cat /sys/module/kmemdump_stress/parameters/rounds"
    before = int(machine.run(rounds))
    target = open_target(f"qmp:{machine.qmp}")
    kernel = attach(target)
    seen = set()
    for look in range(1000):
        if look >= 20 and len(seen) > 1:
            break  # On a busy host, one thread may run for long.
        prog = (kernel := attach(target, known=kernel)).prog
        for mark in find_kernel_regions(prog):
            if mark.name == "forgotten":
                continue
            thread, _, count = mark.name.rpartition("_")
            # No row is torn: each is of one thread, whole.
            text = prog.read(mark.address, mark.size).rstrip(b"\0").decode()
            assert text == thread
            assert mark.size == 64
            assert 0 <= int(count) < 100
            seen.add(thread)
    target.close()
    assert len(seen) > 1
    assert int(machine.run(rounds)) > before
    # A module that goes and forgets a mark is told of, and the mark is taken off.
    machine.run("rmmod kmemdump_stress", timeout=120)
    log = machine.run("dmesg")
    assert re.search(r"WARNING: .*kmemdump_forget", log)
    assert "kmemdump: region forgotten (id" in log
    assert "is a module's that goes while it is registered" in log
    assert marks(machine) == []
    for problem in ("BUG:", "Oops", "expected", "deadlock", "RCU stall"):
        assert problem not in log


@pytest.mark.vm
@pytest.mark.parametrize(
    ("how", "name"),
    [
        ("kfree", "in_kmalloc"),
        ("pages", "in_pages"),
        ("vfree", "in_vmalloc"),
        ("slab", "in_slab"),
    ],
)
def test_memory_that_is_freed_while_it_is_marked(machine, how, name):
    machine.run("insmod /files/kmemdump_stress.ko")
    machine.run(f"echo {how} >/sys/module/kmemdump_stress/parameters/free")
    machine.run("rmmod kmemdump_stress", timeout=120)
    log = machine.run("dmesg")
    assert re.search(rf"kmemdump: region {name} \(id \d+\) is freed while it is", log)
    trace = log[log.index(f"region {name} ") :]
    assert "free_marked" in trace  # The stack trace says who.
    assert marks(machine) == []


TROUBLE = re.compile(r"BUG:|Oops|unable to handle|WARNING: .* forget_last")


@pytest.mark.vm
def test_a_module_that_goes_takes_its_backend_along(machine):
    machine.run("insmod /files/kmemdump_backend.ko forget=1 && rmmod kmemdump_backend")
    # The next region would be offered to it.
    machine.run("insmod /files/kmemdump_sample.ko && rmmod kmemdump_sample")
    log = machine.run("dmesg")
    assert "backend reader is a module's that goes while it is registered" in log
    assert not TROUBLE.search(log)


@pytest.mark.vm
def test_memory_of_an_init_function(machine):
    machine.run("insmod /files/kmemdump_early.ko")
    assert marks(machine) == []
    machine.run("rmmod kmemdump_early")
    log = machine.run("dmesg")
    assert re.search(r"region early \(id \d+\) is freed with its module's init", log)


@pytest.mark.vm
def test_the_end_of_the_address_space(machine):
    machine.run("echo 1 >/sys/module/kmemdump/parameters/last")
    log = machine.run("dmesg")
    assert "forgot the last bytes" in log
    assert not TROUBLE.search(log)


@pytest.mark.vm
def test_writers_while_a_driver_goes(machine):
    say = "/sys/module/kmemdump_sample/parameters/say"
    machine.run(
        "insmod /files/kmemdump_slow.ko && insmod /files/kmemdump_sample.ko && "
        f"{{ (while echo {'A' * 60} >{say}; do :; done) 2>/dev/null & }}"
    )
    machine.run("rmmod kmemdump_sample && wait $! && rmmod kmemdump_slow")
    assert not TROUBLE.search(machine.run("dmesg"))


@pytest.mark.vm
def test_unloads(machine):
    machine.run("rmmod kmemdump && insmod /files/kmemdump.ko")
    assert "kmemdump" in machine.run("lsmod")
    log = machine.run("dmesg")
    assert "kmemdump: watching what is freed" in log


def program(memory, types, symbols):
    """A program for a kernel of nothing but *memory*, at 0x1000."""
    prog = Program(host_platform)
    prog.add_memory_segment(
        0x1000, len(memory), lambda _a, n, at, _p: bytes(memory[at : at + n]), False
    )
    if types is not None:
        prog.register_type_finder("test", types, enable_index=0)

    def find(_prog, name, _address, _one):
        kind = (SymbolBinding.GLOBAL, SymbolKind.OBJECT)
        return [Symbol(name, symbols[name], 0, *kind)] if name in symbols else []

    prog.register_symbol_finder("test", find, enable_index=0)
    return prog


def test_layout_and_names_come_from_the_kernels_types():
    def types(prog, kinds, name, _filename):
        u64, u32 = prog.int_type("u64", 8, False), prog.int_type("u32", 4, False)
        if name == "inspect_entry":  # Not as in any version of the mails.
            members = [("size", u64), ("va", u64), ("new", u64), ("id", u32)]
            return prog.struct_type(
                name,
                32,
                [TypeMember(it, n, 64 * i) for i, (n, it) in enumerate(members)],
            )
        if name == "meminspect_uid":
            ids = [
                TypeEnumerator("MEMINSPECT_ID_UNKNOWN", 0),
                TypeEnumerator("MEMINSPECT_ID_jiffies_64", 10),
            ]
            return prog.enum_type(name, u32, ids)
        return None

    memory = bytearray(0x2000)
    struct.pack_into("<QQQI", memory, 10 * 32, 8, 0xFFFF0000, 99, 10)
    struct.pack_into("<QQQI", memory, 44 * 32, 64, 0xFFFF8000, 99, 44)
    prog = program(memory, types, {"inspect_entries": 0x1000})
    assert find_kernel_regions(prog) == [
        KernelRegion("inspect_entries", 10, "jiffies_64", 0xFFFF0000, 8),
        KernelRegion("inspect_entries", 44, "id44", 0xFFFF8000, 64),
    ]


def test_damaged_tables_give_what_makes_sense():
    memory = bytearray(0x4000)
    entry = struct.Struct("<I4xQQI4x")  # struct kmemdump_zone, and what comes next
    entry.pack_into(memory, 24, 1, 0xFFFF0000, 1 << 60, 0)
    entry.pack_into(memory, 48, 2, (1 << 64) - 1, 4096, 0)
    entry.pack_into(memory, 72, 3, 0xFFFF0000, 0, 0)
    entry.pack_into(memory, 96, 4, 0xFFFF0000, 16, 0)
    prog = program(memory, None, {"kmemdump_zones": 0x1000})
    assert [mark.id for mark in find_kernel_regions(prog)] == [4]
    # A table that the memory ends in, and one that starts nowhere.
    for place in (0x4FE8 - 24, 0x900000):
        prog = program(memory, None, {"kmemdump_zones": place})
        assert find_kernel_regions(prog) == []
