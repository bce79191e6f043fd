# SPDX-License-Identifier: GPL-2.0-or-later
"""
The status of watches in Prometheus' text format.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from kmemdump.text import printable
from kmemdump.watch.control.status import VmRecord, WatchStatus

__all__ = ["metrics"]

_Samples = Iterable[tuple[Mapping[str, str], float]]


def metrics(watches: Sequence[WatchStatus]) -> str:
    """Return all metrics of watches, as a page."""
    vms = [vm for watch in watches for vm in watch.vms]

    def each(value: Callable[[VmRecord], float | None]) -> _Samples:
        return [
            ({"vm": vm.vm}, found) for vm in vms if (found := value(vm)) is not None
        ]

    deaths = [
        ({"vm": vm.vm, "kind": kind}, float(count))
        for vm in vms
        for kind, count in vm.deaths.items()
    ]
    families: list[tuple[str, str, str, _Samples]] = [
        ("vm_watched", "gauge", "Whether the VM's kernel is marked and monitored.",
         each(lambda vm: float(vm.state == "watched"))),
        ("vm_marked_timestamp_seconds", "gauge", "When its marks were refreshed.",
         each(lambda vm: vm.marked)),
        ("vm_marked_bytes", "gauge", "Size of its marks.",
         each(lambda vm: float(vm.size))),
        ("vm_refresh_seconds", "gauge", "Duration of the last refresh.",
         each(lambda vm: vm.refresh_seconds)),
        ("vm_refreshes_total", "counter", "Refreshes of its marks.",
         each(lambda vm: float(vm.refreshes))),
        ("vm_deaths_total", "counter", "Deaths of its kernels, by kind.", deaths),
        ("vm_core_images_total", "counter", "Core images written.",
         each(lambda vm: float(vm.cores))),
        ("vm_core_images_failed_total", "counter", "Deaths without a core image.",
         each(lambda vm: float(vm.not_written))),
        ("vm_worker_deaths_total", "counter", "Unexpected ends of its worker.",
         each(lambda vm: float(vm.worker_deaths))),
        ("vm_worker_memory_bytes", "gauge", "Resident memory of its worker.",
         each(lambda vm: float(vm.memory))),
        ("vm_worker_cpu_seconds_total", "counter", "CPU time of its worker.",
         each(lambda vm: vm.cpu_seconds)),
    ]  # fmt: skip
    lines = [line for family in families for line in _lines(*family)]
    return "\n".join(lines) + "\n"


def _lines(name: str, kind: str, text: str, samples: _Samples) -> Iterator[str]:
    yield f"# HELP kmemdump_{name} {text}"
    yield f"# TYPE kmemdump_{name} {kind}"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        yield f"kmemdump_{name}{{{pairs}}} {value:.15g}"


def _escape(text: str) -> str:
    return (
        printable(text, keep="\n")
        .replace("\\", r"\\")
        .replace('"', r"\"")
        .replace("\n", r"\n")
    )
