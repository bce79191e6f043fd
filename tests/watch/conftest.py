# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches for the tests."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from kmemdump.lab import Machine
from rigs.watching import Watch


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watch]]:
    """``watch(machine or socket…, arguments=[…])`` is a `Watch`."""
    with ExitStack() as stack:

        def start(
            *machines: Machine | Path,
            arguments: Sequence[str] = (),
            until_dead: bool = True,
        ) -> Watch:
            sockets = [
                item.qmp if isinstance(item, Machine) else item for item in machines
            ]
            watch = Watch(
                tmp_path / "cores",
                *sockets,
                arguments=arguments,
                until_dead=until_dead,
            )
            stack.callback(watch.kill)
            return watch

        yield start
