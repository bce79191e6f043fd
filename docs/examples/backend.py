# SPDX-License-Identifier: GPL-2.0-or-later
"""A backend of one's own: a list of regions in a file, for whoever copies memory."""

from dataclasses import dataclass, field
from pathlib import Path

from kmemdump import BackendError, Region, Registry, capture, fit, open_target


@dataclass
class ListBackend:
    """Keeps ``ADDRESS SIZE NAME`` of each region in a file, at most 64 of them."""

    path: Path
    name: str = "list"
    capacity: int | None = 64
    held: dict[int, Region] = field(default_factory=dict)

    def register(self, region: Region) -> None:
        self._write({**self.held, region.id: region})

    def unregister(self, region: Region) -> None:
        self._write({key: r for key, r in self.held.items() if key != region.id})

    def _write(self, regions: dict[int, Region]) -> None:
        lines = [f"{r.address:#x} {r.size:#x} {r.name}\n" for r in regions.values()]
        # Whole or not at all: a reader may come between any two lines.
        partial = self.path.with_suffix(".partial")
        try:
            partial.write_text("".join(lines))
            partial.rename(self.path)
        except OSError as error:
            raise BackendError(f"{self.path}: {error.strerror}") from error
        self.held = regions  # Only now: what failed has changed nothing.


with open_target("qmp:vm.qmp") as vm:
    captured = capture(vm, areas=["kmsg", "sched", "stacks", "tasks"])
    backend = ListBackend(Path("regions.list"))
    registry = Registry(vm.memory.ranges)
    registry.attach(backend)
    wanted = [region.range for region in captured.regions]
    plan = fit(wanted, backend.capacity)
    for number, item in enumerate(plan):
        registry.register(f"plan{number}", item.start, item.size)
print(f"{len(wanted)} ranges, {sum(r.size for r in wanted)} bytes, are wanted")
print(f"{len(backend.held)} regions, {sum(r.size for r in plan)} bytes, are held")
