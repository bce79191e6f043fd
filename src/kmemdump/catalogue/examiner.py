# SPDX-License-Identifier: GPL-2.0-or-later
"""
Examines sources, one after the other, for its parent: ``python -m`` this module.

Its parent sends a source, is told the content's hash, and says whether to go on. Limits
hold even inside C code; if this process dies, its parent knows of which source.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence
from functools import partial

from kmemdump.bounds.page import StatePage
from kmemdump.bounds.steps import Limits, limit_process
from kmemdump.catalogue.content import fetched
from kmemdump.catalogue.examine import examine
from kmemdump.catalogue.messages import from_json, receive, send
from kmemdump.catalogue.problem import problem_row
from kmemdump.catalogue.sources import Source
from kmemdump.errors import KmemdumpError
from kmemdump.kernel.user_builds import user_builds

__all__: list[str] = []


def _main() -> None:
    page_fd, memory, seconds = (int(text) for text in sys.argv[1:4])
    page, limits = StatePage(page_fd), Limits(memory, seconds + 1)
    requests, answers = os.dup(0), os.dup(1)
    # What drgn or a library prints is no answer.
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    _end_with_parent(answers)
    while (message := receive(requests)) is not None:
        source, host = from_json(message[0]["source"]), message[0]["host"]
        identity = message[0]["identity"]
        limit_process(page, limits, {})
        _examine(requests, answers, source, host, identity)


def _examine(
    requests: int, answers: int, source: Source, host: str, identity: Sequence[str]
) -> None:
    try:
        with fetched(source) as content:
            send(answers, {"content": content.hash})
            answer = receive(requests)
            if answer is None or not answer[0]["go"]:
                return
            builds = partial(user_builds, os.environ)
            row, page = examine(source, host, content, identity, builds)
    except (KmemdumpError, OSError, MemoryError) as error:
        problem = str(error) or "not enough memory"
        row, page = problem_row(source, host, problem), None
    send(answers, {"row": row.to_json(), "page": page is not None}, page or b"")


def _end_with_parent(answers: int) -> None:
    """End this process when its parent has closed the pipe of answers."""

    def wait() -> None:
        poll = select.poll()
        poll.register(answers, 0)  # Reports only that the other end is closed.
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


if __name__ == "__main__":
    _main()
