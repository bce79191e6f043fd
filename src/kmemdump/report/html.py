# SPDX-License-Identifier: GPL-2.0-or-later
"""
A report as one HTML page that needs no other file and no network.

Strings of the dead kernel are escaped twice: invisible characters, as on a terminal,
and characters that HTML would take for markup. The page's Content-Security-Policy
allows only its own script and style, by their hashes, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from kmemdump.diagnosis.cpu_words import name_cpus
from kmemdump.kernel.printk import format_time
from kmemdump.report import wording
from kmemdump.report.mail import to_mail
from kmemdump.report.memory_map import draw_map
from kmemdump.report.records import Findings, MemoryMap, MemoryUse
from kmemdump.report.schema import to_json
from kmemdump.report.text import find_excerpt
from kmemdump.text import format_memory, printable
from kmemdump.version import VERSION

__all__ = ["to_html"]

_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
_COLUMNS = 64
_ROWS = 24


def to_html(report: Findings) -> str:
    """Return a report as a page."""
    first, groups = wording.split_cpus(report)
    shown = {
        "report": report,
        "css": _part("page.css"),
        "js": _part("page.js"),
        "version": VERSION,
        "heading": wording.heading(report.cause),
        "host": wording.host(report),
        "facts": list(wording.facts(report)),
        "first": first,
        "groups": groups,
        "log_notes": wording.log_notes(report, range(len(report.log))),
        "use": _use(report.memory),
        "swap": wording.swap_words(report.memory) if report.memory else None,
        "near": find_excerpt(report),
        "mail": to_mail(report),
        "json": _json(report),
        "map": _draw(report.memory_map) if report.memory_map else None,
    }
    page = _template().render(shown, sections=_sections(shown, report))
    return page.lstrip()


def _part(name: str) -> Markup:
    text = files("kmemdump.report").joinpath("page", name).read_text("utf-8")
    return Markup(text)  # Our own, not the kernel's.


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "digest": _digest,
        "lines": _lines,
        "seconds": _seconds,
    }
    environment.globals |= {
        name: getattr(wording, name)
        for name in (
            "cpu_frames",
            "cpu_notes",
            "cpu_problem",
            "fault_source",
            "interruption",
            "locks_notes",
            "shown_code",
            "some_tasks",
            "stack_problem",
            "trace_words",
            "wait_words",
        )
    }
    environment.globals |= {
        "levels": _LEVELS,
        "memory": format_memory,
        "numbers": name_cpus,
        "states": wording.STATES,
    }
    return environment.from_string(str(_part("page.html")))


def _finalize(value: Any) -> Any:
    """Escape invisible characters; Jinja escapes HTML after that."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return value


def _lines(text: str) -> Markup:
    # A line feed is the only control character that is let through.
    escaped = (printable(line) for line in text.split("\n"))
    return Markup("\n").join(escaped)


def _seconds(nanoseconds: int | None) -> str:
    return "" if nanoseconds is None else f"[{format_time(nanoseconds)}]"


def _json(report: Findings) -> Markup:
    """Return the report as JSON that cannot end the element in which it stands."""
    text = json.dumps(to_json(report), separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _sections(shown: dict[str, Any], report: Findings) -> list[tuple[str, str]]:
    wanted = (
        ("cause", "Cause", True),
        ("stack", "Stack", shown["first"]),
        ("stack", "Stack", not shown["first"] and report.trace),
        ("fault", "Registers", report.fault),
        ("missing", "Missing", report.missing),
        ("cpus", "CPUs", shown["groups"]),
        ("blocked", "Blocked", report.blocked),
        ("waits", "Waits", report.waits or report.locks),
        ("log", "Log", report.log),
        ("mail", "Send", True),
        ("tasks", "Tasks", report.tasks),
        ("stacks", "Stacks", report.stacks),
        ("interrupts", "Interrupts", report.interrupts),
        ("memory", "Memory", shown["use"]),
        ("modules", "Modules", report.modules or report.taints),
        ("map", "Map", shown["map"]),
    )
    return [(name, title) for name, title, there in wanted if there]


def _use(memory: MemoryUse | None) -> list[dict[str, Any]]:
    """Return the parts of a bar of 1000 units."""
    if memory is None or not memory.total:
        return []
    sizes = dict(wording.memory_parts(memory))
    total = sizes.pop("total")
    free = sizes.pop("free", 0)
    sizes["other"] = max(total - free - sum(sizes.values()), 0)
    sizes["free"] = free
    scale = 1000 / max(sum(sizes.values()), 1)
    parts = []
    x = 0.0
    for number, (name, count) in enumerate(sizes.items()):
        width = count * scale
        colour = "#8a94a0" if name == "free" else _colour(number)
        place = {"x": round(x, 2), "width": round(width, 2)}
        parts.append({"name": name, "bytes": count, "colour": colour, **place})
        x += width
    return parts


def _colour(number: int) -> str:
    # With the golden angle, neighbours differ, however many colours there are.
    hue = (210 + number * 137.5) % 360
    return f"hsl({hue:.0f} 62% {44 + number % 3 * 8}%)"


def _draw(map: MemoryMap) -> dict[str, Any]:
    cell, rows = draw_map(map, columns=_COLUMNS, rows=_ROWS)
    return {
        "columns": _COLUMNS,
        "cell": cell,
        "rows": rows,
        "areas": map.areas,
        "colours": [_colour(number) for number in range(len(map.areas))],
        "captured": sum(area.bytes for area in map.areas),
        "total": sum(item.size for item in map.ram),
    }
