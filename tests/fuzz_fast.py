# SPDX-License-Identifier: GPL-2.0-or-later
"""
Give each parser ten million inputs: ``make fuzz-fast``.

``make fuzz`` looks at the code that each input runs, which takes most of the time. This
damages what it found (``build/fuzz``) and the seeds, without a look at the code. Each
piece of work runs in a process of its own, and is added to ``tests/tally.json``; the
next run goes on from there. Whatever is raised besides FormatError, takes more than 5 s
or more than 1 GiB is a failure; its input is left in ``build/fuzz``.
"""

import argparse
import gc
import mmap
import os
import random
import resource
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path

from kmemdump.errors import FormatError
from rigs.mutation import Mutator
from rigs.parser import Parser
from rigs.parsers import PARSERS
from rigs.tally import TALLY, Count, add_count, read_tally

FOLDER = Path(os.environ.get("KMEMDUMP_FUZZ", "build/fuzz"))
MEMORY = 1 << 30
LONGEST = 5.0
"""CPU seconds for an input."""
PIECE = 20.0
"""CPU seconds for a process."""
_BATCH = 200
_FAILED = 3
"""Exit status of a process that found failures."""


class Piece:
    """
    A piece of work on one parser, in a process of its own.

    :param seconds: CPU time after which it ends.
    """

    def __init__(self, parser: Parser, folder: Path, seconds: float) -> None:
        self.parser = parser
        self._folder = folder
        self._seconds = seconds
        self._shared = mmap.mmap(-1, 1 << 16)
        """Number of inputs, longest time in microseconds, size, and input."""

    def run(self, seed: int) -> Count:
        """Run it; return what it did."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = self._work(random.Random(seed))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, status, usage = os.wait4(pid, 0)
        count = Count(
            mutated=self._get(0),
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            longest=self._get(1) / 1e6,
            memory=usage.ru_maxrss >> 10,
        )
        if os.WIFSIGNALED(status):  # A hang, or a crash of C code.
            self._keep(self._input(), signal.Signals(os.WTERMSIG(status)).name)
            count.failures = 1
        else:
            count.failures = os.WEXITSTATUS(status) // _FAILED
        return count

    def _work(self, chance: random.Random) -> int:
        paths = sorted((self._folder / self.parser.folder).glob("*"))
        seeds = [path.read_bytes() for path in paths if path.is_file()]
        mutator = Mutator([*self.parser.seeds, *seeds], chance)
        run, make, learn, shared = (
            *(self.parser.run, mutator.make, mutator.learn),
            self._shared,
        )
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        # Objects that refer to each other are freed after each batch.
        gc.collect()
        gc.freeze()
        gc.disable()
        clock, longest, done, found = time.process_time, 0.0, 0, set[str]()
        end = clock() + self._seconds
        while clock() < end:
            # Ends a hang by SIGVTALRM.
            signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST * 3)
            begin = clock()
            for _ in range(_BATCH):
                data = make()
                shared[16 : 20 + len(data)] = len(data).to_bytes(4, "little") + data
                try:
                    run(data)
                    learn(data, None)
                except FormatError as error:
                    learn(data, str(error))
                except Exception as error:
                    self._note(data, error, found)
                now = clock()
                if now - begin > longest:
                    longest = now - begin
                    if longest > LONGEST:
                        self._note(data, TimeoutError(f"{longest:.1f} s"), found)
                begin = now
            done += _BATCH
            self._set(0, done)
            self._set(1, int(longest * 1e6))
            gc.collect()
        return min(_FAILED * len(found), 255 // _FAILED * _FAILED)

    def _note(self, data: bytes, error: Exception, found: set[str]) -> None:
        """Keep one input for each place in the code that fails."""
        frame = traceback.extract_tb(error.__traceback__)[-1:]
        where = f"{type(error).__name__} {[(it.name, it.lineno) for it in frame]}"
        if where not in found:
            found.add(where)
            self._keep(data, where)
            traceback.print_exception(error)

    def _keep(self, data: bytes, why: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self.parser.folder
        path = self._folder / f"{name}-failed-{zlib.crc32(data):08x}"
        path.write_bytes(data)
        print(f"{self.parser.name}: {why}: the input is in {path}", flush=True)

    def _get(self, index: int) -> int:
        return int.from_bytes(self._shared[8 * index : 8 * index + 8], "little")

    def _set(self, index: int, value: int) -> None:
        self._shared[8 * index : 8 * index + 8] = value.to_bytes(8, "little")

    def _input(self) -> bytes:
        size = int.from_bytes(self._shared[16:20], "little")
        return self._shared[20 : 20 + size]


def fuzz(
    parsers: list[Parser], inputs: int, seconds: float, tally: Path, piece: float
) -> int:
    """
    Give each parser inputs, one parser after the other.

    :param inputs: What each is to have had in the end, with those of earlier runs.
    :param seconds: Wall time after which no more work is begun.
    :return: How many failures were found.
    """
    deadline = time.monotonic() + seconds
    failures = 0
    for parser in parsers:
        had = read_tally(tally).get(parser.name, Count())
        while had.inputs < inputs and time.monotonic() < deadline:
            done = Piece(parser, FOLDER, piece).run(had.inputs)
            failures += done.failures
            had = add_count(parser.name, done, tally)
            if not done.mutated or done.failures:
                break  # It fails in its first batch: mend it first.
        rate = had.mutated / had.cpu_seconds if had.cpu_seconds else 0.0
        print(f"{parser.name}: {had.inputs:,} inputs, {rate:,.0f} a second", flush=True)
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("parsers", nargs="*", help="all by default")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--piece", type=float, default=PIECE)
    parser.add_argument("--tally", type=Path, default=TALLY)
    options = parser.parse_args()
    names = {item.name: item for item in PARSERS}
    unknown = [name for name in options.parsers if name not in names]
    if unknown:
        print(f"no parser {unknown[0]!r}; there are: {', '.join(names)}")
        return 2
    chosen = [names[name] for name in options.parsers or names]
    failures = fuzz(
        chosen, options.inputs, options.seconds, options.tally, options.piece
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
