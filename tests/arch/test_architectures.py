# SPDX-License-Identifier: GPL-2.0-or-later
"""Architectures differ in a file each; nothing else asks which one it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kmemdump
from kmemdump.arch.architecture import arch_from_name

SOURCE = Path(kmemdump.__file__).parent

# Their names, and what only one of them has.
ARCHITECTURE = re.compile(
    r"(?<!0)x86|aarch64|arm64|amd64|kimage_voffset|\bphys_base|VA_BITS|TCR_EL1|PHYS_OFFSET"
    r"|pgtable_l5|sme_mask|page_offset_base|vmalloc_base|orc_unwind|pcpu_hot"
    r"|hardirq_stack_ptr|irq_stack_ptr|overflow_stack|cpu_tss|PSTATE|\bHLT|\bCR3|TTBR",
    re.IGNORECASE,
)

OWN = {"arch/aarch64.py", "arch/x86_64.py"}
LINES = {"arch/aarch64_lines.py", "arch/x86_64_lines.py"}
"""For kernels that do not describe themselves."""
LAB = "lab/"  # Builds machines of QEMU, each for an architecture: a table of its own.
ALLOWED = {
    "arch/architecture.py": "lists them",
    "arch/disassembly.py": "names them as the disassembler does",
    "diagnosis/helpers.py": "names functions of all kernels' logs, whatever made them",
    "diagnosis/stack_lines.py": "likewise, and how each writes a stack",
    "formats/oops_text.py": "reads the registers that each prints",
    "report/fault.py": "orders the registers that each has",
    "formats/cloud_hypervisor_state.py": "reads registers as KVM has them on one",
    "formats/firecracker_state.py": "likewise; the file says which",
    "formats/kernel_image.py": "reads images, of which each has a format of its own",
    "formats/elf.py": "has their numbers in ELF files",
    "areas/coreinfo.py": "names variables, of which no kernel has all",
    "areas/crash_names.py": "names what a foreign program, crash, reads on each",
    "areas/crash_stacks.py": "likewise",
    "cli/demo.py": "lists the lab's machines, without loading the lab for --help",
    "firmware_dumps/assemble.py": "takes a dump that does not tell for that of a phone",
    "installing/distributions.py": "names packages of the machines that QEMU plays",
    "kernel/debug_packages.py": "knows how distributions name kernels",
    "kernel/partial_symbols.py": "names the unwind tables that it finds by content",
    "kernel/variables.py": "is a table of variables, of which no kernel has all",
    "marking/firmware_table.py": "tells a person how to reserve memory on each",
    "redaction/own.py": "names variables and types that are data, of any kernel",
    "redaction/structures.py": "likewise",
    "targets/unsupported.py": "knows a boot image by the magic number in it",
    "targets/xen_core.py": "says of which machines it reads dumps",
}


def words(path: Path) -> Iterator[str]:
    """Yield names and strings of a source, without comments and docstrings."""
    tree = ast.parse(path.read_text())
    documentation = set()
    for node in ast.walk(tree):
        # A docstring, or one of an attribute.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            documentation.add(node.value)
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and node not in documentation:
            yield str(node.value)


@pytest.mark.slow
def test_nothing_else_asks() -> None:
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if not path.is_relative_to(SOURCE / LAB)
        and any(ARCHITECTURE.search(word) for word in words(path))
    }
    assert found == OWN | LINES | set(ALLOWED)


def test_their_files_are_small() -> None:
    for name in OWN | LINES:
        assert len((SOURCE / name).read_text().splitlines()) < 300, name


def test_both_are_known_by_the_names_of_their_files() -> None:
    assert {arch_from_name(Path(name).stem).name + ".py" for name in OWN} == {
        Path(name).name for name in OWN
    }
