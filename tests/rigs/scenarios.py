# SPDX-License-Identifier: GPL-2.0-or-later
"""The deaths that kmemdump must answer for: every kernel, size and way to die."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from kmemdump.lab import AARCH64, ARCHITECTURES, X86_64, Architecture, CrashType

SERIES = ("6.1", "6.12")
CPUS = (1, 2, 8)
MEMORY = (1024, 4096)
DEATHS = (CrashType.PANIC, CrashType.NULL, CrashType.SPIN, CrashType.NMI)


def tells(architecture: Architecture, kernel: str) -> bool:
    """
    Return whether a kernel describes its variables and types.

    Debian's arm64 6.1 is built without CONFIG_KALLSYMS_ALL.
    """
    return (architecture, kernel) != (AARCH64, "6.1")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kernel's death."""

    kernel: str
    cpus: int
    memory: int
    """MiB."""
    death: CrashType
    architecture: Architecture = X86_64
    offline: bool = False
    """Whether all CPUs but the first were taken offline before."""

    @property
    def tells(self) -> bool:
        """Whether the kernel describes its variables and types."""
        return tells(self.architecture, self.kernel)

    @property
    def random(self) -> int:
        """MiB of random data, which must not find its way into a dump."""
        return 1024 if self.memory >= 4096 else 0

    def __str__(self) -> str:
        name = f"{self.kernel}-{self.cpus}cpu-{self.memory}m-{self.death}"
        if self.architecture is not X86_64:
            name += f"-{self.architecture.name}"
        return f"{name}-offline" if self.offline else name


# Without an NMI from QEMU, a machine dies in three ways.
ARM_DEATHS = (CrashType.PANIC, CrashType.NULL, CrashType.SPIN)

MATRIX = (
    *(Scenario(*values) for values in product(SERIES, CPUS, MEMORY, DEATHS)),
    *(
        Scenario(*values, AARCH64)
        for values in product(SERIES, CPUS, MEMORY, ARM_DEATHS)
    ),
    *(
        Scenario(series, 8, 1024, death, AARCH64, offline=True)
        for series, death in product(SERIES, ARM_DEATHS)
    ),
)

# "make test" runs these; "make matrix" runs all others. Each series meets each number
# of CPUs, and each value of the other columns occurs (test_lab.py checks). More
# memory takes longer to dump, but is read in the same way: once is enough.
CHOSEN_X86_64 = (
    Scenario("6.1", 1, 1024, CrashType.PANIC),
    Scenario("6.1", 2, 1024, CrashType.NULL),
    Scenario("6.1", 8, 1024, CrashType.NMI),
    Scenario("6.12", 1, 4096, CrashType.NULL),
    Scenario("6.12", 2, 1024, CrashType.SPIN),
    Scenario("6.12", 8, 1024, CrashType.PANIC),
)
# These take twice as long: each series and death, and the machine of the kernel mailing
# list's series, eight CPUs of which seven are offline.
CHOSEN_AARCH64 = (
    Scenario("6.12", 2, 1024, CrashType.PANIC, AARCH64),
    Scenario("6.12", 2, 1024, CrashType.SPIN, AARCH64),
    Scenario("6.1", 8, 1024, CrashType.NULL, AARCH64, offline=True),
)
CHOSEN = CHOSEN_X86_64 + CHOSEN_AARCH64


def _decorate(
    chosen: Collection[Scenario], tells: bool | None = None
) -> pytest.MarkDecorator:
    # All scenarios in the same order, whatever is chosen: pytest groups tests whose
    # parameter has the same place, so that a machine is booted once for all.
    def marks(scenario: Scenario) -> Iterator[pytest.MarkDecorator]:
        yield pytest.mark.vm
        if scenario not in chosen:
            yield pytest.mark.matrix
        if tells not in (None, scenario.tells):
            yield pytest.mark.skip(f"not for a kernel of which {scenario.tells=}")

    return pytest.mark.parametrize(
        "dead",
        [
            pytest.param(scenario, id=str(scenario), marks=list(marks(scenario)))
            for scenario in MATRIX
        ],
        indirect=True,
    )


# Decorate a test that takes the fixture "dead": once for each scenario, or for one
# with each kernel that describes itself, if the way to die does not matter.
each_scenario = _decorate(CHOSEN)
_TELLS = (CHOSEN_X86_64[1], CHOSEN_X86_64[4], CHOSEN_AARCH64[0])
_SILENT = CHOSEN_AARCH64[2]
each_series = _decorate(_TELLS, tells=True)
# Once for each architecture, if only the size and the order of things matter.
each_architecture = _decorate(_TELLS[1:], tells=True)
# Once, if the host matters and not the kernel.
once = _decorate(_TELLS[1:2])
# Once for each series and architecture.
each_kernel_dead = _decorate((*_TELLS[:2], _SILENT))
# Once for the kernel that an old crash opens: its sessions take long. One for another
# architecture is emulated, and takes two minutes.
each_older = _decorate(CHOSEN_X86_64[2:3])
# For one that it does not open.
each_newer = _decorate(CHOSEN_X86_64[5:])
# For one kernel that does not describe itself.
each_silent = _decorate((_SILENT,), tells=False)

# Decorate a test that boots a machine of its own: once for each kernel.
each_kernel = pytest.mark.parametrize(
    ("architecture", "kernel"),
    [
        pytest.param(
            architecture,
            series,
            id=f"{series}-{architecture.name}",
            marks=[] if series == "6.12" else [pytest.mark.matrix],
        )
        for architecture, series in product(ARCHITECTURES, SERIES)
    ],
)
