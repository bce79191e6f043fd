# SPDX-License-Identifier: GPL-2.0-or-later
"""Each way to die is noticed, named and explained; what is no death is not."""

import pytest

from kmemdump.errors import UnsupportedError
from kmemdump.lab import AARCH64, X86_64
from rigs.death_check import problems_of
from rigs.deaths import BY_NAME, DEATHS, NO_DEATHS, unpack_modules
from rigs.watching import PATIENCE

pytestmark = pytest.mark.vm

MARKED = r"marked .* areas, .* regions"
KERNELS = (("6.12", X86_64), ("newest", X86_64), ("6.1", X86_64), ("6.12", AARCH64))
QUICK = ("triple", "emergency")
"""Those of ``make test``, of the first kernel."""


def all_deaths():
    for kernel, architecture in KERNELS:
        for death in DEATHS:
            if architecture not in death.architectures:
                continue
            quick = death.name in QUICK and (kernel, architecture) == KERNELS[0]
            yield pytest.param(
                kernel,
                architecture,
                death,
                id=f"{kernel}-{architecture.name}-{death}",
                marks=() if quick else pytest.mark.matrix,
            )


@pytest.fixture
def dying(booted, lab_kernel, tmp_path):
    """``dying(kernel, architecture, death)`` is a machine that can die so."""

    def boot(kernel, architecture, death):
        package = lab_kernel(kernel, architecture)
        try:
            files = tuple(unpack_modules(package, death.modules, tmp_path))
        except UnsupportedError as error:
            pytest.skip(str(error))
        return booted(
            kernel,
            architecture=architecture,
            action=death.action,
            files=files,
            devices=death.devices,
        )

    return boot


@pytest.mark.parametrize(("kernel", "architecture", "death"), list(all_deaths()))
def test_death(dying, watch, kernel, architecture, death):
    machine = dying(kernel, architecture, death)
    if death.prepare:
        machine.run(death.prepare)
    watched = watch(machine, arguments=["--hang-after", "4", "--interval", "5"])
    watched.wait_for(MARKED)
    death.start(machine)
    watched.wait_for(r"\.core, ", patience=PATIENCE + death.patience)
    assert problems_of(watched.cores[0], death) == []


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("kernel", "architecture"), KERNELS, ids=lambda item: getattr(item, "name", item)
)
def test_no_death(booted, lab_kernel, watch, kernel, architecture, tmp_path):
    """All in one VM, one after the other."""
    package = lab_kernel(kernel, architecture)
    files = tuple(unpack_modules(package, ("watchdog", "softdog"), tmp_path))
    machine = booted(kernel, architecture=architecture, files=files)
    watched = watch(machine, arguments=["--hang-after", "4", "--interval", "3"])
    watched.wait_for(MARKED)
    for event in NO_DEATHS:
        if event.ends or architecture not in event.architectures:
            continue
        lines = len(watched.lines)
        event.start(machine)
        watched.wait_without_alarm(round(event.seconds) + 6, said="no answer")
        assert not watched.cores, (event, watched.lines[lines:])
    assert machine.run("echo I live") == "I live"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(
            event,
            id=event.name,
            # The others are in test_watching.py.
            marks=() if event.name == "halt" else pytest.mark.matrix,
        )
        for event in NO_DEATHS
        if event.ends
    ],
)
@pytest.mark.parametrize(
    ("kernel", "architecture"),
    [
        KERNELS[0],
        *(pytest.param(*item, marks=pytest.mark.matrix) for item in KERNELS[1:]),
    ],
    ids=lambda item: getattr(item, "name", item),
)
def test_orderly_end(booted, watch, kernel, architecture, event):
    machine = booted(kernel, architecture=architecture)
    watched = watch(machine)
    watched.wait_for(MARKED)
    event.start(machine)
    watched.wait_for(event.ends)
    assert watched.cores == []


def test_names():
    assert len(BY_NAME) == len(DEATHS)
    assert len({event.name for event in NO_DEATHS}) == len(NO_DEATHS)
