# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks what a watch left of a death against the table of :mod:`rigs.deaths`."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from kmemdump.coreimage import read_core, verify
from rigs.deaths import Death
from rigs.programs import run_kmemdump

__all__ = ["problems_of"]


def problems_of(core: Path, death: Death) -> list[str]:
    """Return in words what is wrong with the core image of a death."""
    return list(_problems(core, death))


def _problems(path: Path, death: Death) -> Iterator[str]:
    with closing(read_core(path)) as core:
        yield from (f"verify: {problem}" for problem in verify(core))
        manifest = core.manifest
    if manifest is None:
        yield "no manifest"
        return
    if manifest.death != death.kind:
        yield f"kind {manifest.death} ({manifest.cause}), expected {death.kind}"
    report = run_kmemdump("report", path, "--json")
    if report.returncode not in (0, 1):
        yield f"report ends with {report.returncode}: {report.stderr}"
        return
    cause = json.loads(report.stdout)["cause"]
    if not re.search(death.line, cause["sentence"]):
        yield f"the report begins with {cause['sentence']!r}, expected {death.line!r}"
    if cause["fatal"] == death.survived:
        yield f"fatal is {cause['fatal']}"
    info = run_kmemdump("info", path)
    # A core image that lacks something says so; what it claims must hold.
    if info.returncode != 0 and death.complete:
        yield f"info ends with {info.returncode}: {info.stdout}{info.stderr}"
