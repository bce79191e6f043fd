# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done after a death: the core image, and what becomes of the VM."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from kmemdump.errors import KmemdumpError
from kmemdump.text import format_size
from kmemdump.watch.end_causes import Death, End, Fate
from kmemdump.watch.qmp_events import NoticeKind
from kmemdump.watch.reporter import Voice
from kmemdump.watch.settings import Settings, Then
from kmemdump.watch.vm_control import Host
from kmemdump.watch.vm_marks import Keeper, Saved

__all__ = ["Burial", "Next"]

_POLL = 0.25


class Next(Enum):
    """What to do after a core image was written."""

    END = "end"
    WATCH = "watch the same kernel"
    WAIT = "wait for the dead kernel to give way"
    ATTACH = "attach to the kernel that boots"


class Burial:
    """
    Writes the core images of one VM.

    :param name: Of the VM: the first part of their names.
    :param cores: Gets what is written.
    """

    def __init__(
        self,
        name: str,
        host: Host,
        settings: Settings,
        cores: list[Path],
        voice: Voice,
    ) -> None:
        self._cores = cores
        self._name = name
        self._host = host
        self._settings = settings
        self._voice = voice

    def bury(self, keeper: Keeper, death: Death) -> Next:
        """Write the core image, and do with the VM as told."""
        host = self._host
        self._voice.show("writing the core image")
        was_running = host.stop()
        path = self._new_path()
        try:
            saved = keeper.save(path, death.cause)
        except (KmemdumpError, OSError) as error:
            self._voice.complain(f"{death.cause}; no core image: {error}")
        else:
            self._cores.append(path)
            self._tell_core(death, saved)
        if death.oops:
            if was_running:
                host.cont()
            return Next.WATCH
        return self._go_on(death.fate)

    def _tell_core(self, death: Death, saved: Saved) -> None:
        named, finished = (t - death.noticed for t in (saved.named, saved.finished))
        seconds = f"{named:.2f} s"
        if finished > named:
            seconds += f", completed after {finished:.2f} s"
        # Of what else happened, the log tells nothing, but may tell of an old oops.
        in_log = death.oops or death.cause.startswith("panic")
        words = f": {saved.words}" if saved.words and in_log else ""
        self._voice.say(
            f"{death.cause}{words}; {saved.path}, {format_size(saved.size)}, {seconds}"
        )
        if saved.problem:
            self._voice.complain(
                f"{saved.path} has what was marked before: "
                f"{saved.problem.splitlines()[0]}"
            )
        if saved.missing:
            self._voice.complain(
                f"{saved.path} lacks {len(saved.missing)} ranges of memory"
            )

    def _new_path(self) -> Path:
        while True:
            # To the millisecond, so that names sort by time.
            now = datetime.now(UTC)
            stem = f"{self._name}-{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z"
            path = self._settings.folder / f"{stem}.core"
            if not os.path.lexists(path):
                return path
            time.sleep(0.001)

    def _go_on(self, fate: Fate) -> Next:
        host = self._host
        if fate is Fate.GONE or host.gone:
            return Next.END
        then = self._settings.then
        if fate is Fate.RESET and then is Then.PAUSE:
            then = Then.CONTINUE  # Its host wants it to boot.
        match then:
            case Then.PAUSE:
                self._voice.say("left paused")
                return Next.END
            case Then.QUIT:
                host.quit()
                self._voice.say("ended the VM")
                return Next.END
            case Then.RESET if fate not in (Fate.BOOTS, Fate.RESET):
                if not host.reset():
                    return Next.END
                self._voice.say("reset the VM")
                return Next.ATTACH
            case _:
                host.cont()
        if fate is Fate.STANDS:
            return Next.WAIT
        return Next.WATCH if fate is Fate.LIVES else Next.ATTACH

    def outlive(self) -> End:
        """
        Wait until a VM that goes on with a dead kernel boots again, or ends.

        :raises StoppedError: If somebody wants us to end.
        """
        host = self._host
        self._voice.show("dead; waiting for its next boot")
        while not host.gone:
            self._voice.check_stopping()
            notice = host.notice(_POLL)
            if notice is not None and notice.kind is NoticeKind.RESET:
                return End("boots again", again=True)
            if notice is not None and notice.kind is NoticeKind.SHUTDOWN:
                return End("ended")
        return End("QEMU ended")
