# SPDX-License-Identifier: GPL-2.0-or-later
"""What happens to a VM after a death, with a VM that only notes what it is told."""

import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from kmemdump.coreimage import read_core
from kmemdump.coreimage.retention import Limits
from kmemdump.diagnosis.death_kind import DeathKind
from kmemdump.formats.sealed import CLEAR_LIMIT, find_sealed
from kmemdump.sealing import make_seal
from kmemdump.watch.death import handler as module
from kmemdump.watch.death.facts import DeathFacts
from kmemdump.watch.death.handler import DeathHandler
from kmemdump.watch.dump import WrittenDump
from kmemdump.watch.end_causes import DumpCause, VmAfterDeath
from kmemdump.watch.qmp_events import VmEvent, VmEventKind
from kmemdump.watch.reporter import Reporter, StoppedError
from kmemdump.watch.settings import Settings, VmAction
from kmemdump.watch.vm_control import VmControl
from rigs import small_core
from rigs.full_disk import fill, mounted_tmpfs, needs_root, remount
from rigs.keys import age_key

NOBODY = 65534
INFO = SimpleNamespace(osrelease="6.1.0-test")
MARKS = SimpleNamespace(size=20_000, packed_size=1000, info=INFO, boot=1)


class Vm:
    """Stands for `VmControl`."""

    def __init__(self):
        self.target = SimpleNamespace(name="vm")
        self.state = "running"
        self.asked = []
        self.gone = False
        self.events = []
        self.abilities = {"events", "pause", "reset", "quit"}
        self.is_left_paused = False

    def can(self, ability):
        return ability in self.abilities

    def next_event(self, timeout):
        return self.events.pop(0) if self.events else None

    def status(self):
        return self.state

    def migrates(self):
        return False

    def stop(self):
        was, self.state = self.state, "paused"
        return was == "running"

    paused = VmControl.paused

    def cont(self):
        self.asked.append("cont")
        self.state = "running"

    let_run = cont

    def reset(self):
        self.asked.append("reset")
        self.state = "running"
        return True

    def quit(self):
        self.asked.append("quit")
        self.gone = True


class Rig:
    """A handler whose clock runs when it waits."""

    def __init__(self, monkeypatch, folder):
        self.folder = folder
        self.vm = Vm()
        self.now = time.monotonic()
        self.lines = []
        self.on_wait = lambda: None
        """Called at each step of a wait."""
        self.stopping = False
        self.deaths = 0
        for name in ("handler", "act"):
            clock = SimpleNamespace(monotonic=lambda: self.now)
            monkeypatch.setattr(f"kmemdump.watch.death.{name}.time", clock)
        monkeypatch.setattr(
            module, "read_facts", lambda marks, cause: self.facts(cause)
        )
        monkeypatch.setattr("kmemdump.watch.dump.write_dump", self.write_dump)
        self.vm.next_event = self.next_event
        self.signature = "panic: it"
        self.id = None
        self.fails = None
        self.seal = None

    def next_event(self, timeout):
        self.now += timeout
        self.on_wait()
        return self.vm.events.pop(0) if self.vm.events else None

    def facts(self, cause):
        return DeathFacts(self.id or f"id{self.deaths}", self.signature, "words")

    def write_dump(self, marks, path, death, seal):
        if self.fails is not None:
            raise self.fails
        small_core.write(path, death=death, seal=seal)
        size = path.stat().st_size
        return WrittenDump(path, size, (), None, self.now, self.now)

    def handler(self, action=VmAction.RESET, **limits):
        settings = Settings(
            self.folder,
            action=action,
            limits=Limits(**{"min_free": 0, **limits}),
            seal=self.seal,
        )
        reporter = Reporter(
            "vm", lambda news: self.lines.append(news.text), lambda: self.stopping
        )
        reporter.sleep = lambda seconds: setattr(self, "now", self.now + seconds)
        return DeathHandler("vm", "a life", settings, reporter)

    def die(
        self, handler, kind=DeathKind.PANIC, after=VmAfterDeath.STAYS, *, found=False
    ):
        self.deaths += 1
        self.vm.state = "running"
        cause = DumpCause(kind, str(kind), self.now, after, found=found)
        return handler.handle(self.vm, MARKS, cause)

    @property
    def cores(self):
        return sorted(self.folder.glob("*.core"))


@pytest.fixture
def rig(monkeypatch, tmp_path):
    folder = tmp_path / "cores"
    folder.mkdir()
    return Rig(monkeypatch, folder)


def test_dump_then_reset(rig):
    end = rig.die(rig.handler())
    assert (end.text, end.boots_again) == ("reset the VM", True)
    [path] = rig.cores
    with read_core(path) as core:
        assert core.manifest.vm == "vm"
        assert core.manifest.death_id == "id1"
        assert core.manifest.signature == "panic: it"
    assert rig.vm.asked == ["reset"]


@needs_root
@pytest.mark.parametrize(
    ("action", "asked"),
    [
        (VmAction.RESET, ["reset"]),
        (VmAction.QUIT, ["quit"]),
        (VmAction.PAUSE, []),
        (VmAction.CONTINUE, ["cont"]),
    ],
)
def test_full_disk(rig, tmp_path, action, asked):
    """Nothing is done to the VM before there is room, and then at once."""
    waited = []

    def on_wait():
        if rig.vm.asked == ["cont"]:
            rig.vm.gone = True  # Ends the wait for a reset.
            return
        assert rig.vm.asked == []
        assert rig.vm.state == "paused"
        waited.append(rig.now)
        if len(waited) == 100:
            ballast.unlink()

    rig.on_wait = on_wait
    with mounted_tmpfs(tmp_path, 4 << 20) as disk:
        rig.folder = disk
        ballast = fill(disk)
        rig.die(rig.handler(action))
        assert len(rig.cores) == 1
    assert 100 <= len(waited) <= 110
    assert rig.vm.asked == asked
    problems = [line for line in rig.lines if "no core image" in line]
    assert len(problems) == 1, rig.lines
    assert "has 0.0 kB free" in problems[0]
    assert "the VM stays paused; trying again" in problems[0]


@needs_root
def test_a_disk_that_is_full_only_when_it_is_written(rig, tmp_path, monkeypatch):
    """As with a quota, or others that write at the same time."""
    monkeypatch.setattr(
        "kmemdump.coreimage.folder.CoreFolder.reserve", lambda *_, **__: nullcontext()
    )
    attempts = []
    with mounted_tmpfs(tmp_path, 1 << 20) as disk:
        rig.folder = disk
        ballast = fill(disk)
        write = rig.write_dump

        def write_dump(marks, path, death, seal):
            attempts.append(rig.now)
            if len(attempts) == 7:
                ballast.unlink()
            return write(marks, path, death, seal)

        monkeypatch.setattr("kmemdump.watch.dump.write_dump", write_dump)
        rig.die(rig.handler())
        assert len(rig.cores) == 1
        assert not list(disk.glob(".*partial*"))
    waits = [round(later - now) for now, later in pairwise(attempts)]
    assert waits == [4, 8, 16, 32, 60, 60]
    assert any("No space left on device" in line for line in rig.lines)


def test_a_folder_that_is_gone_and_comes_back(rig, tmp_path):
    away = tmp_path / "away"
    handler = rig.handler()
    rig.folder.rename(away)
    rig.on_wait = lambda: (
        rig.now > start + 50 and away.exists() and away.rename(rig.folder)
    )
    start = rig.now
    assert rig.die(handler).boots_again
    assert len(rig.cores) == 1
    assert rig.now - start < 60
    assert any(
        "No such file or directory; the VM stays paused" in it for it in rig.lines
    )


@needs_root
def test_a_disk_that_is_read_only(rig, tmp_path):
    def on_wait():
        if 30 < rig.now - start < 31:
            remount(disk, "rw")
        assert rig.now - start < 100

    with mounted_tmpfs(tmp_path, 4 << 20) as disk:
        rig.folder = disk
        handler = rig.handler()
        remount(disk, "ro")
        start, rig.on_wait = rig.now, on_wait
        assert rig.die(handler).boots_again
        assert len(rig.cores) == 1
    assert any("Read-only file system; the VM stays" in line for line in rig.lines)


@needs_root
def test_a_folder_that_may_not_be_written(rig):
    """For a user whose folder somebody made his own."""

    def on_wait():
        assert rig.now - start < 100
        if 30 < rig.now - start < 31:
            os.seteuid(0)
            rig.folder.chmod(0o777)
            os.seteuid(NOBODY)

    with tempfile.TemporaryDirectory() as folder:  # Those of pytest are root's alone.
        rig.folder = Path(folder)
        rig.folder.chmod(0o755)
        start, rig.on_wait = rig.now, on_wait
        os.seteuid(NOBODY)
        try:
            assert rig.die(rig.handler()).boots_again
        finally:
            os.seteuid(0)
        assert [path.owner() for path in rig.cores] == ["nobody"]
    assert any("Permission denied; the VM stays paused" in line for line in rig.lines)


def test_an_error_of_any_kind_keeps_it_paused(rig):
    rig.fails = OSError(5, "Input/output error")

    def on_wait():
        assert rig.vm.asked == []
        if rig.now - start > 2000:
            rig.fails = None

    start = rig.now
    rig.on_wait = on_wait
    assert rig.die(rig.handler()).boots_again
    said = [line for line in rig.lines if "no core image" in line]
    assert len(said) == 4  # Now and then.
    assert "for 11 min" in said[1]


def test_told_to_stop_while_it_waits(rig):
    """The next watch finds a VM that is dead and paused, and whose death was seen."""
    rig.fails = OSError(28, "No space left on device")
    rig.on_wait = lambda: setattr(rig, "stopping", True)
    with pytest.raises(StoppedError):
        rig.die(rig.handler())
    assert rig.vm.state == "paused"
    assert "left paused" in rig.lines[-1]
    rig.fails, rig.stopping = None, False
    again = rig.handler()
    assert again.history.is_waiting("id1")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("kind", [DeathKind.PANIC, DeathKind.HANG])
def test_killed_before_anything_was_written(rig, kind):
    """The next watch takes the death from here, also if it cannot be seen again."""
    rig.fails = Killed()
    with pytest.raises(Killed):
        rig.die(rig.handler(), kind)
    rig.fails = None
    again = rig.handler()
    again.go_on(rig.vm)
    assert (rig.vm.state, rig.vm.asked) == ("paused", [])
    assert again.pending(SimpleNamespace(boot="another")) is None
    cause = again.pending(MARKS)
    assert (cause.kind, cause.found) == (kind, False)
    assert again.handle(rig.vm, MARKS, cause).text == "reset the VM"
    assert len(rig.cores) == 1
    assert rig.handler().pending(MARKS) is None


@pytest.mark.parametrize(
    ("action", "asked"), [("reset", ["cont"]), ("continue", ["cont"]), ("pause", [])]
)
def test_killed_after_a_reset(rig, action, asked):
    """Nothing in memory shows that a watch has paused the VM."""
    rig.fails = Killed()
    with pytest.raises(Killed):
        rig.die(rig.handler(), after=VmAfterDeath.RESET_BY_GUEST)
    assert rig.vm.state == "paused"
    for _ in range(2):
        rig.handler(VmAction(action)).go_on(rig.vm)
        assert rig.vm.asked == asked
    assert any("no core image: the process" in line for line in rig.lines)


def test_killed_after_a_reset_and_somebody_lets_it_run(rig):
    rig.fails = Killed()
    for life, state in (("a life", "running"), ("another", "paused")):
        with pytest.raises(Killed):
            rig.die(rig.handler(), after=VmAfterDeath.RESET_BY_GUEST)
        rig.vm.state = state
        again = rig.handler()
        again._life = life
        again.go_on(rig.vm)
        assert rig.vm.asked == []
        assert rig.handler().pending(MARKS) is None


def test_nothing_is_done_to_a_vm_that_was_dead_before(rig):
    """Whatever becomes of the watch that wrote no core image of it."""
    rig.fails = OSError(28, "No space left on device")
    rig.on_wait = lambda: setattr(rig, "stopping", True)
    with pytest.raises(StoppedError):
        rig.die(rig.handler(), found=True)
    assert rig.vm.state == "running"  # As it was.
    rig.fails, rig.stopping, rig.vm.asked = None, False, []
    rig.deaths -= 1
    rig.die(rig.handler(), found=True)
    assert len(rig.cores) == 1
    assert rig.vm.asked == ["cont"]


def test_somebody_lets_it_run(rig):
    rig.fails = OSError(28, "No space left on device")

    def on_wait():
        rig.vm.events.append(VmEvent(VmEventKind.RESET, "host", guest=False))
        rig.vm.state = "running"

    rig.on_wait = on_wait
    end = rig.die(rig.handler())
    assert end.boots_again
    assert rig.vm.asked == []
    assert any("too late" in line for line in rig.lines)


def test_a_vm_that_cannot_be_paused_is_dumped_later(rig):
    rig.fails = OSError(28, "No space left on device")
    rig.vm.stop = lambda: False
    rig.on_wait = lambda: rig.now - start > 30 and setattr(rig, "fails", None)
    start = rig.now
    assert rig.die(rig.handler()).text == "reset the VM"
    assert len(rig.cores) == 1


def test_a_monitor_that_did_not_answer_when_it_died(rig):
    """libvirt's daemon was away: nobody else let it run."""
    rig.fails = OSError(28, "No space left on device")
    stop = rig.vm.stop
    rig.vm.status = lambda: rig.vm.state if rig.now - start > 20 else None
    rig.vm.stop = lambda: rig.vm.status() is not None and stop()
    rig.on_wait = lambda: rig.now - start > 40 and setattr(rig, "fails", None)
    start = rig.now
    assert rig.die(rig.handler()).text == "reset the VM"
    assert len(rig.cores) == 1
    assert not any("somebody else" in line for line in rig.lines)


def test_a_reset_of_a_paused_vm_does_not_let_it_run(rig):
    """Such an event may also be of before the pause."""
    rig.fails = OSError(28, "No space left on device")
    rig.vm.events.append(VmEvent(VmEventKind.RESET, "guest"))
    rig.on_wait = lambda: rig.now - start > 30 and setattr(rig, "fails", None)
    start = rig.now
    assert rig.die(rig.handler()).text == "reset the VM"


def test_qemu_that_has_ended_is_not_waited_for_long(rig):
    rig.fails = OSError(28, "No space left on device")
    rig.vm.gone = True
    start = rig.now
    end = rig.die(rig.handler(), DeathKind.QEMU_ENDED, VmAfterDeath.ENDED)
    assert not end.boots_again
    assert 60 < rig.now - start < 200
    assert "is lost" in rig.lines[-1]


def test_a_kernel_that_survived_goes_on(rig):
    rig.fails = OSError(28, "No space left on device")
    handler = rig.handler()
    rig.id = "oops"
    for _ in range(3):
        assert rig.die(handler, DeathKind.OOPS, VmAfterDeath.MAY_RUN) is None
        assert handler.postponed  # The monitor finds it again.
    assert rig.vm.asked == ["cont"] * 3
    assert sum("the kernel goes on; trying again" in line for line in rig.lines) == 1
    rig.fails = None
    assert rig.die(handler, DeathKind.OOPS, VmAfterDeath.MAY_RUN) is None
    assert not handler.postponed
    assert len(rig.cores) == 1


@needs_root
def test_no_room_is_no_reason_to_pause_a_living_kernel(rig, tmp_path):
    with mounted_tmpfs(tmp_path, 1 << 20) as disk:
        rig.folder = disk
        fill(disk)
        handler = rig.handler()
        rig.vm.stop = lambda: pytest.fail("it was paused")
        assert rig.die(handler, DeathKind.OOPS, VmAfterDeath.MAY_RUN) is None
        assert handler.postponed


def test_the_same_death_is_not_dumped_twice(rig):
    rig.id = "death"
    for _ in range(3):  # As after restarts of the watch.
        rig.die(rig.handler(VmAction.PAUSE))
    [path] = rig.cores
    assert f"panic; {path.name} is of this very death" in rig.lines
    # A record that is lost; a core image that somebody took away.
    (rig.folder / ".vm.deaths").unlink()
    rig.die(rig.handler(VmAction.PAUSE))
    assert len(rig.cores) == 1
    rig.id = "another"
    rig.die(rig.handler(VmAction.PAUSE))
    for path in rig.cores:
        path.unlink()
    rig.die(rig.handler(VmAction.PAUSE))
    assert rig.cores == []


@pytest.fixture
def sealed(rig, tmp_path):
    rig.seal = make_seal([age_key(tmp_path).public])
    rig.signature = "panic: a secret"
    return rig


def test_sealed(sealed):
    """Neither the files nor what is said of a death have the kernel's words."""
    sealed.die(sealed.handler(VmAction.PAUSE))
    [path] = sealed.cores
    with open(path, "rb") as file:
        found = find_sealed(file.read(CLEAR_LIMIT), "core")
    assert found.clear.tags is not None
    assert found.clear.signature == ""
    for file in sealed.folder.iterdir():
        assert b"secret" not in file.read_bytes(), file
    assert not any("words" in line for line in sealed.lines)
    assert any(f"panic; {path}" in line for line in sealed.lines)
    sealed.seal = replace(sealed.seal, show_cause=True)
    sealed.die(sealed.handler(VmAction.PAUSE))
    with open(sealed.cores[-1], "rb") as file:
        shown = find_sealed(file.read(CLEAR_LIMIT), "core")
    assert shown.clear.signature == "panic: a secret"
    assert any("panic: words; " in line for line in sealed.lines)


def test_sealed_core_images_are_told_apart(sealed):
    """Without reading them: the same death is not dumped twice, the oldest goes."""
    sealed.id = "death"
    for _ in range(2):
        sealed.die(sealed.handler(VmAction.PAUSE))
        (sealed.folder / ".vm.deaths").unlink()
    assert len(sealed.cores) == 1
    names = [sealed.cores[0].name]
    for number in range(3):
        sealed.id = f"other{number}"
        sealed.die(sealed.handler(VmAction.PAUSE, keep=2))
        (sealed.folder / ".vm.deaths").unlink()
        names.append(sealed.cores[-1].name)
    assert [path.name for path in sealed.cores] == [names[0], names[-1]]
    # Another cause is counted apart, and its first one stays.
    sealed.id, sealed.signature = "of another", "oops: other"
    sealed.die(sealed.handler(VmAction.PAUSE, keep=2))
    assert sealed.cores[0].name == names[0]
    assert len(sealed.cores) == 2


def test_the_folder_has_another_name(rig, tmp_path):
    rig.id = "death"
    rig.die(rig.handler(VmAction.PAUSE))
    rig.folder = rig.folder.rename(tmp_path / "moved")
    rig.die(rig.handler(VmAction.PAUSE))
    assert len(rig.cores) == 1


def test_deaths_that_cannot_be_told_are_all_dumped(rig):
    handler = rig.handler(VmAction.PAUSE)
    rig.facts = lambda cause: DeathFacts("", "vanished: it")
    for _ in range(2):
        rig.die(handler)
    assert len(rig.cores) == 2


def test_crash_loop(rig):
    """Resets come later and later, and the folder stays small."""
    starts = []
    handler = rig.handler(keep=4)
    for _ in range(12):
        died = rig.now
        assert rig.die(handler).boots_again
        starts.append(round(rig.now - died))
        rig.now += 5
    assert starts == [0, 0, 0, 5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert "4 deaths, each soon after a start: reset in 5 s" in rig.lines
    assert len(rig.cores) == 4
    assert any("no core image: it is death 6 of this cause" in it for it in rig.lines)
    with read_core(rig.cores[0]) as core:
        assert core.manifest.death_id == "id1"
    rig.signature = "panic: something else"
    rig.die(handler)
    with read_core(rig.cores[-1]) as core:
        assert core.manifest.death_id == "id13"


def test_a_loop_is_known_to_the_next_watch(rig):
    for _ in range(5):
        died = rig.now
        rig.die(rig.handler())
    assert round(rig.now - died) == 10


def test_the_hosts_own_reset_does_not_wait(rig):
    handler = rig.handler()
    start = rig.now
    for _ in range(8):
        end = rig.die(handler, DeathKind.HOST_RESET, VmAfterDeath.RESET_BY_HOST)
        assert end.boots_again
    assert rig.now == start
    assert set(rig.vm.asked) == {"cont"}


@pytest.mark.parametrize("action", VmAction)
def test_a_reset_of_a_vm_that_its_user_paused(rig, action):
    rig.vm.is_left_paused = True
    handler = rig.handler(action)
    end = rig.die(handler, DeathKind.HOST_RESET, VmAfterDeath.RESET_BY_HOST)
    assert end.boots_again
    assert rig.vm.asked == []


@pytest.mark.parametrize("action", ["pause", "reset", "quit"])
def test_a_monitor_that_cannot_be_asked(rig, action):
    """The VM goes on: only its process is known, which would answer to nobody."""
    rig.vm.abilities = set()
    end = rig.die(rig.handler(action=VmAction(action)))
    assert rig.vm.asked == ["cont"]
    assert rig.vm.state == "running"
    assert end.boots_again  # Its memory shows when: there are no events.
    text = f"let it go on: its monitor cannot be asked to {action} it"
    assert text in rig.lines


def test_stale_partial_files(rig):
    stale = rig.folder / ".vm-20250101T000000.000Z.core.partial-0123abcd"
    stale.write_bytes(b"half")
    rig.handler()
    assert not stale.exists()


def test_a_kernel_that_survived_goes_on_whatever_happens(rig):
    rig.fails = KeyError("a bug")
    with pytest.raises(KeyError):
        rig.die(rig.handler(), DeathKind.OOPS, VmAfterDeath.MAY_RUN)
    assert rig.vm.state == "running"
