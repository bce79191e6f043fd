# SPDX-License-Identifier: GPL-2.0-or-later
"""No pattern takes long for a line, whatever the line is."""

import importlib
import inspect
import pkgutil
import re
import signal
from collections.abc import Iterator
from types import ModuleType

import pytest

import kmemdump
from rigs.pattern_attacks import attacks

pytestmark = pytest.mark.slow

SIZE = 2000
"""Time in proportion to its square is 20 ms, to its cube a minute."""
LONGEST = 1.0
"""CPU seconds."""


def patterns_in(value: object, depth: int = 0) -> Iterator[re.Pattern]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 4 and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from patterns_in(item, depth + 1)
    elif depth < 4 and isinstance(value, dict):
        yield from patterns_in([*value, *value.values()], depth)
    elif depth < 4 and hasattr(value, "__dataclass_fields__"):
        fields = value.__dataclass_fields__
        yield from patterns_in([getattr(value, it, None) for it in fields], depth + 1)


def modules() -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(kmemdump.__path__, "kmemdump."):
        # These run when they are imported: in Python's, and in gdb's.
        if not module.name.endswith(("__main__", "gdb_commands")):
            yield importlib.import_module(module.name)


def all_patterns() -> dict[tuple[str, str | bytes], re.Pattern]:
    """Return the patterns by their names and their texts."""
    return {
        (name, pattern.pattern): pattern
        for module in modules()
        for name, value in vars(module).items()
        for pattern in patterns_in(value)
    }


def only_matched() -> set[str]:
    """Return the names of patterns that are never searched for."""
    text = "".join(inspect.getsource(module) for module in modules())
    used = re.findall(r"(\w+)\.(match|fullmatch|search|finditer|findall|sub)\(", text)
    searched = {name for name, how in used if how not in ("match", "fullmatch")}
    return {name for name, _ in used} - searched


def test_no_pattern_takes_long():
    patterns, matched = all_patterns(), only_matched()
    assert len(patterns) > 300
    slow = [
        text
        for (name, text), it in patterns.items()
        if takes_long(it, searched=name not in matched)
    ]
    assert slow == []


@pytest.mark.parametrize("text", [r"Code: ((?:[0-9a-f]{2,8} ?)+)$", r"a\w*b\w*c\w*d"])
def test_what_is_found(text):
    assert takes_long(re.compile(text), searched=True)


def takes_long(pattern: re.Pattern, *, searched: bool) -> bool:
    def stop(number, frame):
        raise TimeoutError

    run = pattern.search if searched else pattern.fullmatch
    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        for attack in attacks(pattern, SIZE):
            data = attack.encode() if isinstance(pattern.pattern, bytes) else attack
            signal.setitimer(signal.ITIMER_VIRTUAL, LONGEST)
            run(data)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except TimeoutError:
        return True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return False
