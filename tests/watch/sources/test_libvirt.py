# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains of a real libvirtd: found, marked, dead, dumped, reset, gone."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("libvirt", reason="installed by 'make test'")

from kmemdump.cli import main
from kmemdump.coreimage import read_core
from kmemdump.errors import TargetError
from kmemdump.lab import CrashType
from kmemdump.opening import open_target
from kmemdump.targets.libvirt.crash_action import crash_action
from kmemdump.targets.vm import paused
from kmemdump.watch.reporter import Reporter
from kmemdump.watch.sources.libvirt import DomainFilter, LibvirtSource
from kmemdump.watch.sources.metadata import MetadataFilter
from kmemdump.watch.vm_control import VmControl
from rigs.libvirtd import Domain, Libvirtd, unpacked_libvirtd, wait_for
from rigs.watching import AREAS, Watch

pytestmark = pytest.mark.vm


@pytest.fixture(
    params=[None, pytest.param("trixie", marks=pytest.mark.matrix)],
    ids=["here", "Debian 13"],
)
def libvirtd(request, tmp_path, lab_cache):
    """This machine's, which is Debian 12's, or another release's."""
    other = request.param and unpacked_libvirtd(lab_cache, request.param)
    with Libvirtd(tmp_path / "v", lab_cache, unpacked=other) as daemon:
        yield daemon


@pytest.fixture
def watch_libvirt(tmp_path, libvirtd):
    watches = []

    def start(*arguments):
        watch = Watch(
            tmp_path / "cores",
            arguments=[f"--libvirt={libvirtd.uri}", *arguments],
            until_dead=False,
        )
        watches.append(watch)
        return watch

    yield start
    for watch in watches:
        watch.kill()


SMALL = {"memory": 512, "tasks": 20, "vmcoreinfo": False}
PANIC = '<panic model="isa"/>'
"""The guest tells QEMU that it panicked, and libvirt then ends QEMU by default."""


@pytest.fixture
def guest(make_setup):
    """What a domain boots: small, and nothing that helps."""
    return make_setup("6.1", **SMALL)


@pytest.fixture
def telling_guest(make_setup, lab_kernel, tmp_path):
    """The same with the driver of :data:`PANIC`."""
    driver = tmp_path / "pvpanic-mmio.ko"
    driver.write_bytes(lab_kernel("6.1").module(driver.stem))
    return make_setup("6.1", pvpanic=True, module=driver, **SMALL)


def on_crash(domain):
    return crash_action(domain.raw.XMLDesc(0))


def test_domains_come_die_and_go(libvirtd, guest, telling_guest, watch_libvirt, capsys):
    watch = watch_libvirt("--then", "reset", "--name", "web*")
    Domain(libvirtd, "db1", guest).raw.create()  # It is not asked for.
    web1 = Domain(libvirtd, "web1", telling_guest, devices=PANIC)
    web1.start()
    watch.wait_for(r"^web1: found: libvirt:\S+#web1$")
    watch.wait_for(r"^web1: marked 6\.1\.")
    assert on_crash(web1) == "preserve"

    # The daemon is killed: QEMU goes on, and so does the watch.
    libvirtd.kill()
    watch.wait_for(r"^: .*; trying again$")
    libvirtd.start()
    watch.wait_for(r"^: libvirt answers again$")

    lines = len(watch.lines)
    web1.die()
    # By an event, or by a look if it dies before events are asked for again.
    watch.wait_for(r"^web1: panic.*sysrq.*; \S+\.core, ", after=lines)
    watch.wait_for(r"^web1: reset the VM$", after=lines)
    (core,) = watch.cores
    assert core.name.startswith("web1-")
    assert main(["info", str(core)]) == 0
    assert "panic" in capsys.readouterr().out
    web1.wait_ready()
    watch.wait_for(r"^web1: marked 6\.1\.", after=lines)
    assert web1.state == "running"

    # It ends, and starts again: another life under the same name.
    lines = len(watch.lines)
    web1.destroy()
    watch.wait_for(r"^web1: is gone$", after=lines)
    assert on_crash(web1) == "destroy"
    web1.raw.create()
    watch.wait_for(r"^web1: found", after=lines)
    wait_for(lambda: on_crash(web1) == "preserve")
    watch.process.terminate()
    assert watch.end() == 0
    assert on_crash(web1) == "destroy"
    assert not any(line.startswith("db1") for line in watch.lines)
    assert watch.cores == [core], watch.lines


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("crash", "cause"),
    [(CrashType.PANIC, "panic: .*sysrq"), (CrashType.SPIN, "frozen: .*")],
)
def test_a_guest_that_tells_nothing(libvirtd, make_setup, watch_libvirt, crash, cause):
    """Without a panic device, its memory shows that it died."""
    watch = watch_libvirt("--hang-after", "5")
    web1 = Domain(libvirtd, "web1", make_setup("6.1", **SMALL))
    web1.start()
    watch.wait_for(r"^web1: marked 6\.1\.")
    web1.die(crash)
    watch.wait_for(rf"^web1: {cause}.*; \S+\.core, ")
    watch.wait_for("^web1: left paused$")
    assert web1.state == "paused"
    assert main(["info", str(watch.cores[0])]) == 0


@pytest.mark.matrix
def test_a_death_while_the_daemon_is_away(libvirtd, make_setup, watch_libvirt, capsys):
    """Its memory shows it. Registers, and the reset, are libvirt's."""
    watch = watch_libvirt("--then", "reset")
    web1 = Domain(libvirtd, "web1", make_setup("6.1", **SMALL))
    web1.start()
    watch.wait_for(r"^web1: marked 6\.1\.")
    libvirtd.kill()
    watch.wait_for(r"^: .*; trying again$")
    web1.die()
    watch.wait_for(r"^web1: panic: .*sysrq.*; \S+\.core, ")
    assert main(["info", str(watch.cores[0])]) == 1
    assert "registers for CPU 0 were not saved" in capsys.readouterr().out
    lines = len(watch.lines)
    libvirtd.start()
    watch.wait_for(r"^: libvirt answers again$")
    watch.wait_for(r"^web1: reset the VM$")
    watch.wait_for(r"^web1: marked 6\.1\.", after=lines)


def test_target(libvirtd, guest, tmp_path, capsys):
    """``libvirt:URI#DOMAIN``, by name and by UUID; a daemon that comes back."""
    domain = Domain(libvirtd, "web1", guest)
    spec = f"libvirt:{libvirtd.uri}#web1"
    with pytest.raises(TargetError, match="not running"):
        open_target(spec)
    domain.start()
    core = tmp_path / "web1.core"
    areas = [word for name in AREAS for word in ("--area", name)]
    assert main(["capture", spec, "--pause", "-o", str(core), *areas]) == 0
    assert read_core(core).manifest is not None
    assert domain.state == "running"
    with pytest.raises(TargetError, match="not found"):
        open_target(f"libvirt:{libvirtd.uri}#nothing")

    uuid = domain.raw.UUIDString()
    with open_target(f"libvirt:{libvirtd.uri}#{uuid}") as target:
        client = target.client
        assert client.peer == domain.pid
        assert target.status() == "running"
        with pytest.raises(TargetError, match="not in a VM of libvirt"):
            client.execute("dump-guest-memory")
        with pytest.raises(TargetError, match="QEMU says"):
            client.execute("no-such-command")
        # libvirt's state follows.
        target.stop()
        assert (target.status(), domain.state) == ("paused", "paused")
        target.cont()
        assert (target.status(), domain.state) == ("running", "running")
        # The daemon stands still: each wait has an end.
        os.kill(libvirtd.pid, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(TargetError, match="libvirt"):
            client.execute("query-status", timeout=0.5)
        assert time.monotonic() - begin < 5
        os.kill(libvirtd.pid, signal.SIGCONT)
        # The daemon dies and comes back.
        libvirtd.kill()
        wait_for(lambda: _problem(target))
        assert client.connected
        libvirtd.start()
        wait_for(lambda: not _problem(target))
        wait_for(lambda: client.event(1) == {"event": "LIBVIRT_CONNECTED"})
        # The same while the domain is paused for a moment: it goes on.
        control = VmControl(target, Reporter("web1", lambda event: None, lambda: False))
        for moment in (paused(target), control.paused()):
            with moment:
                assert domain.state == "paused"
                libvirtd.kill()
                wait_for(lambda: _problem(target))
                starting = threading.Timer(1.0, libvirtd.start)
                starting.start()
            starting.join()  # It looks at the process that is killed next.
            assert (target.status(), domain.state) == ("running", "running")
        client.execute("quit")
        wait_for(lambda: not client.connected)
        assert domain.state == "shut off"


@pytest.mark.parametrize("seconds", [12, pytest.param(50, marks=pytest.mark.matrix)])
def test_a_hanging_qemu_that_is_to_go_on(libvirtd, guest, seconds):
    """libvirt waits for it 30 s, and then drops what it was asked for."""
    domain = Domain(libvirtd, "web1", guest)
    domain.raw.create()
    with open_target(f"libvirt:{libvirtd.uri}#web1") as target:
        target.client._timeout = target.client._connection._timeout = 1.0
        with paused(target):
            pid = domain.pid
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(seconds, os.kill, (pid, signal.SIGCONT)).start()
        assert (target.status(), domain.state) == ("running", "running")


def test_a_qemu_that_hangs_for_long(libvirtd, guest):
    """The daemon listens only as long as few calls wait for QEMU."""
    domain = Domain(libvirtd, "web1", guest)
    domain.raw.create()
    with open_target(f"libvirt:{libvirtd.uri}#web1") as target:
        client, pid = target.client, domain.pid
        os.kill(pid, signal.SIGSTOP)
        for _ in range(50):
            with pytest.raises(TargetError, match=r"does not answer|no answer"):
                client.execute("query-status", timeout=0.3)
            time.sleep(0.2)
        os.kill(pid, signal.SIGCONT)
        wait_for(lambda: not _problem(target))
        assert client.event() is None  # It did not have to connect again.


@pytest.mark.matrix
def test_in_a_pod(tmp_path, lab_cache, guest):
    """libvirt and QEMU in PID and mount namespaces of their own, as in KubeVirt's."""
    options = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    with Libvirtd(tmp_path / "v", lab_cache, namespaces=options) as daemon:
        domain = Domain(daemon, "default_vm", guest)
        domain.start()
        (listens,) = _children(daemon.pid)
        socket = f"/proc/{listens}/root{daemon.socket}"
        uri = f"qemu+unix:///system?socket={socket}"
        with open_target(f"libvirt:{uri}#default_vm") as target:
            assert target.client.peer not in (0, domain.pid)  # It is another one here.
            assert target.vmcoreinfo().osrelease.startswith("6.1.")
        source = LibvirtSource(uri)
        try:
            wait_for(source.vms)
            (vm,) = source.vms()
            assert vm.name == "default_vm"
            assert f"-{target.client.peer}-" in vm.life
        finally:
            source.close()
        domain.destroy()


@pytest.mark.matrix
def test_pods_that_come_later(tmp_path, lab_cache, guest):
    """They end and start again while one watch goes on, as KubeVirt's do."""
    inside = "/run/libvirt/pod.sock"  # Only the pods have it.
    watch = Watch(
        tmp_path / "cores",
        arguments=[f"--libvirt=qemu+unix:///system?socket=/proc/*/root{inside}"],
        until_dead=False,
    )
    options = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    same = "<uuid>6b2f5a4e-0d1c-4c39-9a37-3f1d3f0a7c11</uuid>"
    try:
        for number in (1, 2):
            lines = len(watch.lines)
            folder = tmp_path / str(number)
            with Libvirtd(folder, lab_cache, namespaces=options) as daemon:
                os.link(daemon.socket, f"{folder}/root{inside}")
                domain = Domain(daemon, "default_web", guest, elements=same)
                domain.start()
                found = watch.wait_for(r"^default_web: found: ", after=lines)
                assert f"/root{inside}#default_web" in found.string
                watch.wait_for(r"^default_web: marked 6\.1\.", after=lines)
                domain.die()
                watch.wait_for(r"^default_web: panic: .*; \S+\.core, ", after=lines)
                watch.wait_for(r"^default_web: left paused$", after=lines)
                assert domain.state == "paused"
            watch.wait_for(r"^default_web: is gone$", after=lines)
        watch.process.terminate()
        assert watch.end() == 0
    finally:
        watch.kill()
    assert [core.name.partition("-")[0] for core in watch.cores] == ["default_web"] * 2


def _children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _problem(target):
    try:
        target.status()
    except TargetError as error:
        return str(error)
    return ""


def test_source(libvirtd, guest):
    """What is listed: by name and metadata, with another life for each start."""
    web1, web2 = (
        Domain(libvirtd, f"web{number}", guest, title=f"shop {number}")
        for number in (1, 2)
    )
    source = LibvirtSource(libvirtd.uri, DomainFilter(("web*",)))
    titled = DomainFilter(metadata=(MetadataFilter.parse("title=*2"),))
    second = LibvirtSource(libvirtd.uri, titled)

    def names(one):
        return [vm.name for vm in one.vms()]

    def said():
        source.vms()
        return source.messages()

    try:
        wait_for(lambda: source.vms() or source.settled)
        assert source.vms() == []
        for domain in (web1, web2):
            domain.raw.create()
        wait_for(lambda: names(source) == ["web1", "web2"])
        wait_for(lambda: names(second) == ["web2"])
        before = source.vms()
        web1.destroy()
        wait_for(lambda: names(source) == ["web2"])
        web1.raw.create()
        wait_for(lambda: names(source) == ["web1", "web2"])
        after = source.vms()
        assert after[0].life != before[0].life
        assert after[1] == before[1]

        # While the daemon is away, nothing is known to have ended.
        libvirtd.kill()
        wait_for(said)
        assert source.vms() == after
        libvirtd.start()
        wait_for(lambda: "libvirt answers again" in said())
        assert source.vms() == after

        # Nor while the process that asks is.
        assert source._process is not None
        source._process.kill()
        wait_for(said)
        assert source.vms() == after
        web2.destroy()
        wait_for(lambda: names(source) == ["web1"])
    finally:
        source.close()
        second.close()
