# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines for the tests. Kernels are downloaded once and kept."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from kmemdump.cli import main
from kmemdump.lab import (
    X86_64,
    Architecture,
    KernelPackage,
    Machine,
    PackageCache,
    Setup,
    build_module,
    crash_guest,
    default_folder,
)
from kmemdump.lab.apt import MissingPackageError
from rigs.dead_machine import DeadMachine
from rigs.results import pytest_addoption, pytest_configure  # noqa: F401
from rigs.scenarios import Scenario
from rigs.snapshots import Snapshots

# Durations are for benchmarks; a busy host is slow. "make matrix" uses the second
# profile.
hypothesis.settings.register_profile("quick", deadline=None, max_examples=25)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=300)
hypothesis.settings.load_profile("quick")

# Tests of one run share what core images of one kernel build have in common; kernels
# are kept for the next run. The processes of a run inherit what their first one sets.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["KMEMDUMP_LAB"] = str(default_folder(os.environ).absolute())
    _CACHE = tempfile.TemporaryDirectory(prefix="kmemdump-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name

# In the background of a shell, this process and all that it starts ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """
    Keep tests that share a machine together if tests run in several processes.

    Tests with machines go first, and the shortest last, so that no process waits for
    the last test of another.
    """
    left_out = [it for it in items if it.get_closest_marker("left_out") is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [it for it in items if it.get_closest_marker("left_out") is None]
    items.sort(key=lambda item: item.get_closest_marker("vm") is None)
    for item in items:
        if item.get_closest_marker("vm") and (group := _machine(item)):
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a file's bytes by their number: those of gzip are other ones each time."""
    if isinstance(val, bytes) and len(val) > 64:
        return f"{len(val)} bytes"
    return None


def _machine(item: pytest.Item) -> str:
    """Return a key that all tests of one machine share, or an empty string."""
    assert isinstance(item, pytest.Function)
    callspec = getattr(item, "callspec", None)
    if callspec is not None and "dead" in callspec.params:
        return str(callspec.params["dead"])
    # A parameter by its number: a group has no "]" in its name.
    numbers = callspec.indices if callspec is not None else {}
    shared = [
        f"{name}{numbers.get(name, '')}"
        for name, (*_, fixture) in item._fixtureinfo.name2fixturedefs.items()
        if fixture.scope == "module"
    ]
    return " ".join([item.path.stem, *shared]) if shared else ""


@pytest.fixture(scope="session", autouse=True)
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what runs here apart from the machine's own watches and agents."""
    os.environ["RUNTIME_DIRECTORY"] = str(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def lab_cache() -> PackageCache:
    """The folder of unpacked packages: $KMEMDUMP_LAB, or of the cache."""
    return PackageCache(default_folder(os.environ))


@pytest.fixture(scope="session")
def lab_kernel(lab_cache: PackageCache) -> Callable[..., KernelPackage]:
    """``lab_kernel("6.1", AARCH64)`` is a kernel by its name."""
    return cache(lab_cache.kernel)


@pytest.fixture(scope="session")
def vmlinux(
    lab_cache: PackageCache, lab_kernel: Callable[..., KernelPackage]
) -> Callable[..., Path]:
    """``vmlinux("6.1", AARCH64)`` is that kernel with debug information."""

    def find(*which: object) -> Path:
        try:
            return lab_cache.vmlinux(lab_kernel(*which))
        except MissingPackageError:
            pytest.skip("Debian has no debug file of it any more")

    return find


def find_module(cache: PackageCache, kernel: KernelPackage) -> Path | None:
    """Return the lab's module for a kernel, if Debian still has its headers."""
    try:
        return build_module(cache, kernel)
    except MissingPackageError:
        return None


@pytest.fixture(scope="session")
def make_setup(
    lab_cache: PackageCache, lab_kernel: Callable[..., KernelPackage]
) -> Callable[..., Setup]:
    """
    ``make_setup(kernel, **fields)`` is a `Setup` whose guest can die in every way.

    Tests with equal setups share a snapshot: ask for another one only where it matters.
    """

    def make(
        kernel: str = "6.12",
        *,
        architecture: Architecture = X86_64,
        **fields: object,
    ) -> Setup:
        package = lab_kernel(kernel, architecture)
        if kernel.endswith("-16k"):
            fields.setdefault("cpu", "max")  # The usual one has pages of 4 KiB only.
        if "module" not in fields:
            fields["module"] = find_module(lab_cache, package)
        return Setup(package, **fields)

    return make


@pytest.fixture(scope="session")
def snapshots(lab_cache: PackageCache) -> Snapshots:
    """Machines that have booted, in this run or in one before."""
    return Snapshots(lab_cache, lab_cache.folder / "snapshots")


@pytest.fixture
def booted(
    snapshots: Snapshots, make_setup: Callable[..., Setup]
) -> Iterator[Callable[..., Machine]]:
    """``booted(kernel, **fields)`` is a running machine, gone after the test."""
    with ExitStack() as machines:
        yield lambda *args, **fields: machines.enter_context(
            snapshots.machine(make_setup(*args, **fields))
        )


@pytest.fixture(scope="session")
def dead(
    request: pytest.FixtureRequest,
    snapshots: Snapshots,
    make_setup: Callable[..., Setup],
    vmlinux: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[DeadMachine]:
    """A dead machine for each scenario (see `scenarios.each_scenario`)."""
    scenario: Scenario = request.param
    setup = make_setup(
        scenario.kernel,
        architecture=scenario.architecture,
        cpus=scenario.cpus,
        memory=scenario.memory,
        random=scenario.random,
    )
    scratch = tmp_path_factory.mktemp(str(scenario))
    try:
        with snapshots.machine(setup) as machine:
            if scenario.offline:
                for cpu in range(1, scenario.cpus):
                    machine.run(f"echo 0 >/sys/devices/system/cpu/cpu{cpu}/online")
            crash_guest(machine, scenario.death, timeout=300)
            machine.pause()
            yield DeadMachine(scenario, machine, scratch, vmlinux)
    finally:
        shutil.rmtree(scratch)  # pytest would keep that of three runs.


@pytest.fixture(scope="session")
def core_image(dead: DeadMachine) -> Path:
    """The core image of a dead machine, with everything in it."""
    path = dead.scratch / "image.core"
    target = f"qmp:{dead.machine.qmp}"
    assert main(["capture", target, "-o", str(path), *dead.options]) == 0
    return path
