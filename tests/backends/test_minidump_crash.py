# SPDX-License-Identifier: GPL-2.0-or-later
"""
The machine may die between any two stores: firmware finds the old or the new regions.

Each change is recorded as the words that it stores; each beginning of them is then put
into the memory from before, and read as firmware would.
"""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kmemdump.backends.elf_header_region import Description, describe
from kmemdump.backends.minidump import MinidumpBackend
from kmemdump.formats.elfheader import parse_header_region
from kmemdump.memory.ranges import Region
from rigs.machine import FOREIGN, SCRATCH, SMEM, FakeMachine, View, foreign, view
from rigs.writers.minidump import write_regions

State = tuple[View, object]


def state(machine: FakeMachine) -> State:
    """What firmware finds, and what the ELF header among it says."""
    found = view(machine)
    plain = {row for row in found if row[0] not in ("KELF", "Kvmcorein")}
    texts: list[object] = []
    for name, _, address, size in found - plain:
        data = machine.read(address, size)
        if name == "KELF":
            header = parse_header_region(data, name)
            texts.append((name, header.entries, header.vmcoreinfo_size))
        else:
            texts.append((name, data.rstrip(b"\0")))
    return frozenset(plain), frozenset(texts)


class Crashes(RuleBasedStateMachine):
    @initialize(shared=st.booleans())
    def start(self, shared: bool) -> None:
        self.machine = foreign([("KLOG", 0, b"ILAV", 0x80301000, 64)])
        # Behind its rows is what was there once, valid as it was.
        stale = write_regions([("KSTALE", 9, b"ILAV", 0x80302000, 64)] * 200)
        self.machine.put(FOREIGN + 40, stale)
        if not shared:
            self.machine = FakeMachine()
        self.backend = MinidumpBackend(self.machine, SMEM, scratch=SCRATCH)
        self.regions: list[Region] = []
        self.next_id = 3

    def change(self, action: Callable[[], object]) -> None:
        """Do something; check each state on the way."""
        before, old = bytearray(self.machine.data), state(self.machine)
        self.machine.stores = []
        action()
        new = state(self.machine)
        torn = FakeMachine()
        torn.data = before
        for address, data in self.machine.stores:
            assert state(torn) in (old, new)
            torn.put(address, data)
        assert torn.data == self.machine.data
        assert {row[1:3] for row in new[0]} >= {
            (region.id, region.address) for region in self.regions
        }

    @rule(page=st.integers(0, 3), size=st.integers(1, 9))
    def register(self, page: int, size: int) -> None:
        region = Region(self.next_id, f"r{size}", 0x80300000 + page * 4096, size)
        self.next_id += 1
        self.change(lambda: self.backend.register(region))
        self.regions.append(region)

    @precondition(lambda self: self.regions)
    @rule(data=st.data())
    def unregister(self, data: st.DataObject) -> None:
        region = data.draw(st.sampled_from(self.regions))
        self.regions.remove(region)
        self.change(lambda: self.backend.unregister(region))

    @rule(notes=st.sampled_from([b"", bytes(12), bytes(120)]))
    def describe(self, notes: bytes) -> None:
        description = Description(183, b"OSRELEASE=6.12\n", notes)
        header, text = describe(description, self.regions, slots=20, alignment=4)
        if not any(row[0] == "KELF" for row in view(self.machine)):
            # Two regions come, one after the other.
            self.backend.describe(header, text)
            return
        self.change(lambda: self.backend.describe(header, text))

    def teardown(self) -> None:
        while self.regions:
            region = self.regions.pop()
            self.change(lambda region=region: self.backend.unregister(region))


TestCrashes = Crashes.TestCase
TestCrashes.settings = settings(stateful_step_count=12)
