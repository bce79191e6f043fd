# SPDX-License-Identifier: GPL-2.0-or-later
"""Names that a compiler changed, as they lie in real kernels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.diagnosis.crash_frame import find_crash_frame
from kmemdump.diagnosis.records import Cause, CauseKind, Cpu, Frame
from kmemdump.diagnosis.stack_lines import read_counter
from kmemdump.formats.btf import Btf, parse_btf
from kmemdump.formats.symbols import SymbolRow, SymbolTable, make_symbols
from kmemdump.kernel.attach import attach
from kmemdump.kernel.debug_info import DebugInfo
from kmemdump.kernel.symbol_names import base_name, clone_of, plain_name
from kmemdump.lab import AARCH64
from kmemdump.opening import open_target
from kmemdump.report.stacks import find_symbol
from rigs.btf_writer import BtfWriter

INVENTED = [
    ("c_stop.llvm.17132674095431275852", "c_stop"),  # Thin LTO.
    ("foo$707af9a22804d33c81801f27dcfe489b", "foo"),  # Clang 12 with old CFI.
    ("foo.9af9a22804d33c81801f27dcfe489b", "foo"),  # Clang 13 with old CFI.
    ("foo.9af9a22804d33c81801f27dcfe489b.cfi_jt", "foo"),
    ("vfs_write.cfi_jt", "vfs_write"),
    ("vfs_write.cfi", "vfs_write"),
    ("foo.__uniq.283871429879287.llvm.9283", "foo"),  # AutoFDO with thin LTO.
    ("counter.lto_priv.0", "counter"),
    ("do_one.llvm.123.cold", "do_one.cold"),
    ("do_one.cold.llvm.123", "do_one.cold"),
]
KEPT = [
    "schedule",
    "__schedule.part.0",
    "__handle_sysrq.cold",
    "shrink_node.isra.0.constprop.3",
    "__func__.42",
    "__already_done.9",
    "cfi_jt",
    "foo.llvm.",
    ".llvm.12",
    ".text",
    "",
    "_RNvNtCs3yuwAp0waWO_6kernel5print14call_printk_macro",  # Rust.
    "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE",
    "_ZN57_$LT$core..fmt..Error$u20$as$u20$core..fmt..Debug$GT$3fmt17h00E",
]


@pytest.mark.parametrize(("name", "plain"), INVENTED)
def test_plain_name(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("name", KEPT)
def test_what_stays(name: str) -> None:
    assert plain_name(name) == name


@given(st.text(alphabet="ab0.$_lvmcfijt", max_size=40))
def test_plain_name_is_plain(name: str) -> None:
    plain = plain_name(name)
    assert plain_name(plain) == plain
    assert bool(plain) == bool(name)
    assert base_name(plain) == base_name(name)


def test_clones_and_parts() -> None:
    assert clone_of("shrink_node.isra.0.constprop.3") == "shrink_node"
    assert clone_of("set.constprop.0.llvm.12") == "set"
    for name in ("schedule", "panic.cold", "vprintk.part.0", "__func__.42", ".isra.0"):
        assert clone_of(name) is None
    for name in ("panic", "panic.cold", "panic.llvm.1", "panic.isra.0.cold"):
        assert base_name(name) == "panic"


def symbols(*names: str, size: int) -> SymbolTable:
    return make_symbols(
        SymbolRow(0x1000 + 16 * i, name, 0x12, size) for i, name in enumerate(names)
    )


def no_types() -> Btf:
    return parse_btf(BtfWriter().bytes(), "test")


def info(*names: str, size: int = 0) -> DebugInfo:
    return DebugInfo(symbols(*names, size=size), no_types(), 0x1000, 0x2000)


NAMES = (
    "first",
    "c_stop.llvm.17132674095431275852",
    "c_stop.llvm.99",
    "shrink_node.isra.0",
    "panic.cold",
    "vfs_read.cfi_jt",
    "vfs_read",
    "last",
)


def test_found_by_the_plain_name() -> None:
    found = info(*NAMES)
    symbol = found.symbol("c_stop")
    assert symbol is not None
    assert (symbol.name, symbol.address, symbol.size) == ("c_stop", 0x1010, 16)
    assert [it.address for it in found.find("c_stop", None, False)] == [0x1010, 0x1020]
    clone = found.symbol("shrink_node")
    assert clone is not None
    assert clone.address == 0x1030
    assert found.symbol("panic") is None  # Only a part of it.
    # Who asks for the name of the compiler gets it.
    exact = found.symbol("c_stop.llvm.99")
    assert exact is not None
    assert (exact.name, exact.address) == ("c_stop.llvm.99", 0x1020)
    # The function itself, not the entry of the jump table.
    assert [it.address for it in found.find("vfs_read", None, False)] == [0x1060]


def test_addresses_have_plain_names() -> None:
    found = info(*NAMES, size=16)
    names = [found.find(None, 0x1008 + 16 * i, True)[0].name for i in range(7)]
    assert names == [
        *("first", "c_stop", "c_stop", "shrink_node.isra.0"),
        *("panic.cold", "vfs_read", "vfs_read"),
    ]


def test_frames_are_compared_by_the_function() -> None:
    names = ("panic.llvm.12", "vpanic.cold", "sysrq_handle_crash.llvm.5", "write")
    frames = tuple(Frame(0x1000 + i, name) for i, name in enumerate(names))
    cause = Cause(CauseKind.PANIC, "", cpu=0)
    assert find_crash_frame(cause, [Cpu(0, True, frames=frames)]) == 2


def test_sentence_has_the_plain_name() -> None:
    found = read_counter("RIP: 0010:do_it.llvm.123456+0x10/0x20 [module]")
    assert found is not None
    assert (found.place, found.name) == ("do_it+0x10/0x20 [module]", "do_it")


@pytest.mark.vm
@pytest.mark.matrix
def test_kernel_built_with_thin_lto(booted, vmlinux):
    """By its own kallsyms, and by its vmlinux, which both have the compiler's names."""
    machine = booted("android", architecture=AARCH64, cpu="max")
    with open_target(f"qmp:{machine.qmp}") as target:
        kernel = attach(target)
        with_vmlinux = attach(target, vmlinux=vmlinux("android", AARCH64)).prog
        found = kernel.own_debug_info.found
        assert found is not None
        names = [row.name for row in found.symbols if ".llvm." in row.name]
        assert len(names) > 500
        for name in names:
            plain = plain_name(name)
            assert plain == name.partition(".llvm.")[0] + name.partition(".cold")[1]
            [symbol, *_] = kernel.prog.symbols(plain)
            assert symbol.name == plain
        for name in names[:20]:
            address = with_vmlinux.symbol(name).address
            place, offset, _ = find_symbol(with_vmlinux, address)
            assert offset == 0
            assert place is not None
            assert ".llvm." not in place
