# SPDX-License-Identifier: GPL-2.0-or-later
"""The deaths that kmemdump must answer for: every kernel, size and way to die."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from kmemdump.lab import AARCH64, X86_64, Architecture, CrashType

CPUS = (1, 2, 8)
MEMORY = (1024, 4096)
DEATHS = (CrashType.PANIC, CrashType.NULL, CrashType.SPIN, CrashType.NMI)
# Without an NMI from QEMU, a machine dies in three ways.
ARM_DEATHS = (CrashType.PANIC, CrashType.NULL, CrashType.SPIN)

KERNELS = {
    X86_64: (
        "5.10",
        *("6.1", "6.1-generic", "6.1-rt"),
        *("6.12", "6.12-generic", "6.12-rt", "trixie-6.12"),
        *("6.18", "7.1", "7.2"),
        *("newest", "newest-generic", "newest-rt", "sid-newest"),
        "frame-pointers",
    ),
    AARCH64: ("6.1", "6.12", "6.12-16k", "newest", "android"),
}
"""
The kernels that kmemdump is tested with, by their names in `kmemdump.lab`. Those from
6.13 on stand for a change that broke something (6.17: timekeeper_data; 7.0: kallsyms;
7.2: what was a pointer) and for Debian's newest.
"""

TESTED = {X86_64: ("6.12", "newest"), AARCH64: ("6.12",)}
"""Those of ``make test``; the others are only in ``make matrix``."""

THOROUGH = {X86_64: ("6.12", "newest"), AARCH64: ("6.12",)}
"""Those that meet each number of CPUs, size of memory and death."""


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


def panic(kernel: str, architecture: Architecture = X86_64) -> Scenario:
    """Return how each kernel dies, whatever else it does."""
    return Scenario(kernel, 2, 1024, CrashType.PANIC, architecture)


def hang(kernel: str, architecture: Architecture = X86_64) -> Scenario:
    """Return how each kernel hangs."""
    return Scenario(kernel, 2, 1024, CrashType.SPIN, architecture)


# An old crash's scenario, and one of a kernel that does not describe itself.
_OLD = Scenario("6.1", 8, 1024, CrashType.NMI)
_SILENT = Scenario("6.1", 8, 1024, CrashType.NULL, AARCH64, offline=True)

BASIC = tuple(
    die(kernel, architecture)
    for architecture, kernels in KERNELS.items()
    for kernel in kernels
    for die in (panic, hang)
)
"""A panic and a hang of each kernel."""

MATRIX = tuple(
    dict.fromkeys(
        (
            *BASIC,
            *(
                Scenario(kernel, *values, architecture)
                for architecture, deaths in ((X86_64, DEATHS), (AARCH64, ARM_DEATHS))
                for kernel in THOROUGH[architecture]
                for values in product(CPUS, MEMORY, deaths)
            ),
            *(
                Scenario(kernel, 8, 1024, death, AARCH64, offline=True)
                for kernel, death in product(THOROUGH[AARCH64], ARM_DEATHS)
            ),
            _OLD,
            _SILENT,
        )
    )
)

# "make test" runs these; "make matrix" runs all others. Each kernel, number of CPUs
# and death occurs (test_lab.py checks). More memory takes longer to dump, but is read
# in the same way.
CHOSEN_X86_64 = (
    Scenario("newest", 1, 1024, CrashType.PANIC),
    Scenario("newest", 2, 1024, CrashType.NULL),
    Scenario("6.12", 2, 1024, CrashType.SPIN),
    Scenario("6.12", 8, 1024, CrashType.NMI),
)
# These take twice as long. The machine of the kernel mailing list's series, eight CPUs
# of which seven are offline, is in the matrix.
CHOSEN_AARCH64 = (
    Scenario("6.12", 2, 1024, CrashType.PANIC, AARCH64),
    Scenario("6.12", 2, 1024, CrashType.SPIN, AARCH64),
)
CHOSEN = CHOSEN_X86_64 + CHOSEN_AARCH64


def _decorate(
    chosen: Collection[Scenario], matrix: Collection[Scenario] = MATRIX
) -> pytest.MarkDecorator:
    # All scenarios in the same order, whatever is chosen: pytest groups tests whose
    # parameter has the same place, so that a machine is booted once for all.
    def marks(scenario: Scenario) -> Iterator[pytest.MarkDecorator]:
        yield pytest.mark.vm
        if scenario in BASIC:
            yield pytest.mark.basic
        if scenario not in chosen:
            yield pytest.mark.matrix
            if scenario not in matrix:
                yield pytest.mark.left_out  # conftest.py does so.

    return pytest.mark.parametrize(
        "dead",
        [
            pytest.param(scenario, id=str(scenario), marks=list(marks(scenario)))
            for scenario in MATRIX
        ],
        indirect=True,
    )


# Decorate a test that takes the fixture "dead": once for each scenario, or once for
# each kernel that describes itself, if the way to die does not matter.
each_scenario = _decorate(CHOSEN)
_TELLS = (CHOSEN_X86_64[0], CHOSEN_X86_64[2], CHOSEN_AARCH64[0])
_PANICS = tuple(it for it in BASIC if it.death is CrashType.PANIC and it.tells)
each_series = _decorate(_TELLS, _PANICS)
# Once for each way to die.
each_death = _decorate((*CHOSEN_X86_64[1:], CHOSEN_AARCH64[0]))
# A debug file takes seconds to load each time: once for each kernel.
each_with_debug_info = _decorate((*CHOSEN_X86_64[1:3], CHOSEN_AARCH64[0]))
# Deaths in the lab's module, once for each kernel.
each_death_in_module = _decorate(
    CHOSEN_X86_64[1:2],
    (
        *(it for it in BASIC if it.death is CrashType.SPIN and it.tells),
        *(it for it in MATRIX if it.death is CrashType.NULL and it.memory == 1024),
    ),
)
# The same where the host's part is tested: once in "make test".
each_series_once = _decorate(_TELLS[1:2], _PANICS)
# Once for each architecture, if only the size and the order of things matter.
each_architecture = _decorate(_TELLS[1:2], _TELLS[2:])
# Once, if the host matters and not the kernel.
once = _decorate(_TELLS[1:2], ())
# Once for each kernel.
each_kernel_dead = _decorate(_TELLS[1:2], (*_PANICS, _SILENT))
# Once for each kernel, to be compared with what crash says.
each_newest_crash = _decorate((), _PANICS)
# For the kernel that an old crash opens: its sessions take long. One for another
# architecture is emulated, and takes two minutes.
each_older = _decorate((), (_OLD, _SILENT))
# For those that crash 8.0.6 opens, and Debian 12's does not.
each_newer = _decorate(
    CHOSEN_X86_64[2:3], (*(it for it in MATRIX if it.kernel == "6.12"), _OLD, _SILENT)
)
# For what debuggers say of redacted core images: two sessions of crash for each.
each_redacted = _decorate((), (panic("6.12"), _OLD, panic("newest")))
# For one kernel that does not describe itself.
each_silent = _decorate((), (_SILENT,))


def _boot_each(
    chosen: Collection[tuple[Architecture, str]],
) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("architecture", "kernel"),
        [
            pytest.param(
                architecture,
                kernel,
                id=f"{kernel}-{architecture.name}",
                marks=[
                    pytest.mark.basic,
                    *([] if (architecture, kernel) in chosen else [pytest.mark.matrix]),
                ],
            )
            for architecture, kernels in KERNELS.items()
            for kernel in kernels
        ],
    )


# Decorate a test that boots a machine of its own: once for each kernel.
each_kernel = _boot_each([(X86_64, "6.12"), (AARCH64, "6.12")])
# The same, where the architecture does not matter much.
each_kernel_once = _boot_each([(X86_64, "6.12")])
