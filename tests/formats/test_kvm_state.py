# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers in the snapshots of Firecracker and Cloud Hypervisor."""

import struct

import pytest

from kmemdump.errors import FormatError
from kmemdump.formats import cloud_hypervisor_state, firecracker_state
from rigs.writers.kvm_state import write_cloud_hypervisor, write_firecracker


def check(cpus, count):
    assert len(cpus) == count
    for number, cpu in enumerate(cpus):
        registers = cpu.registers
        assert registers["RIP"] == 0xFFFFFFFF81000000 + number
        assert registers["R15"] == number << 32 | 15
        assert registers["RFL"] == 0x246
        assert (registers["CS"], registers["SS"]) == (0x10, 0x18)
        assert registers["GS.base"] == 0xFFFF888000000000 + number
        assert cpu.page_table == 0x12345000


def test_firecracker():
    check(firecracker_state.parse_state(write_firecracker(3), "state"), 3)


@pytest.mark.parametrize("form", ["bytes", "members", "sections"])
def test_cloud_hypervisor(form):
    data = write_cloud_hypervisor(11, form=form)  # "10" comes behind "9".
    check(cloud_hypervisor_state.parse_state(data, "state.json"), 11)
    data = write_cloud_hypervisor(2, form=form, names=["vcpu0", "vcpu1"])
    check(cloud_hypervisor_state.parse_state(data, "state.json"), 2)


def damaged(old: bytes, new: bytes) -> bytes:
    data = write_firecracker(1)
    assert old in data
    return data.replace(old, new)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "0 bytes, expected a Firecracker snapshot"),
        (bytes(100), "starts with 0x0, expected 0x710198486640000"),
        (write_firecracker(1, arch="aarch64"), "a snapshot of aarch64"),
        (damaged(b"8.0.0", b"eight"), "has no version"),
        (write_firecracker(0), "version 8.0.0: no CPU found"),
        (damaged(struct.pack("<Q", 0xD01), bytes(8)), "not in 64-bit mode"),
    ],
    ids=["empty", "other", "arm", "version", "none", "real mode"],
)
def test_firecracker_refused(data, problem):
    with pytest.raises(FormatError, match=problem):
        firecracker_state.parse_state(data, "state")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"[" * 100000, "not JSON"),
        (b"[]", "no CPUs"),
        (write_cloud_hypervisor(0), "no CPUs"),
        (write_cloud_hypervisor(1, names=["first"]), "a CPU named 'first'"),
        (write_cloud_hypervisor(1).replace(b"regs", b"rags"), "no registers of KVM"),
        (
            write_cloud_hypervisor(1, form="members").replace(b"efer", b"afer"),
            "in no known form: 'efer'",
        ),
        (
            write_cloud_hypervisor(1, form="members").replace(b"0x246", b"x"),
            None,
        ),
    ],
    ids=["empty", "deep", "list", "none", "name", "other", "member", "same"],
)
def test_cloud_hypervisor_refused(data, problem):
    if problem is None:
        check(cloud_hypervisor_state.parse_state(data, "state.json"), 1)
        return
    with pytest.raises(FormatError, match=problem):
        cloud_hypervisor_state.parse_state(data, "state.json")
