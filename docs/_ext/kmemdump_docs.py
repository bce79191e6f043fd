# SPDX-License-Identifier: GPL-2.0-or-later
"""
Sphinx directives that write down what the program says about itself.

``kmemdump-verb`` is a verb's usage, help and options; ``kmemdump-areas`` the table of
areas, ``kmemdump-area-details`` what each is made of, ``kmemdump-schema FILE`` the
fields of one of the package's JSON schemas. So the manual cannot say anything else than
``--help`` and ``kmemdump areas``.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from kmemdump.areas import AREAS
from kmemdump.areas.area import Area
from kmemdump.catalogue.row import COLUMNS
from kmemdump.cli.main import _program

__all__ = ["setup", "write_man_sources"]


def _escape(text: str) -> str:
    """Let reStructuredText see nothing but words."""
    for character in "\\*`|_":
        text = text.replace(character, "\\" + character)
    return text


class _Generated(SphinxDirective):
    """Parses the lines of :meth:`lines` in place of the directive."""

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        content = StringList(list(self.lines()), source=self.get_source_info()[0])
        parent = nodes.Element()
        self.state.nested_parse(content, self.content_offset, parent)
        return list(parent.children)


class _Verb(_Generated):
    required_arguments = 1

    def lines(self) -> Iterator[str]:
        name = self.arguments[0]
        program = click.Context(_program, info_name="kmemdump")
        verb = _program.get_command(program, name)
        if verb is None:
            raise self.error(f"kmemdump has no verb {name}")
        context = click.Context(verb, program, info_name=name)
        usage = " ".join(verb.collect_usage_pieces(context))
        yield from (".. code-block:: none", "", f"   kmemdump {name} {usage}", "")
        yield from _paragraphs(verb)
        yield from _options(verb, context)
        for part in verb.commands.values() if isinstance(verb, click.Group) else ():
            inner = click.Context(part, context, info_name=part.name)
            usage = " ".join(part.collect_usage_pieces(inner))
            yield from (f".. rubric:: {name} {part.name}", "")
            yield from (".. code-block:: none", "")
            yield from (f"   kmemdump {name} {part.name} {usage}", "")
            yield from _paragraphs(part)
            yield from _options(part, inner)


def _paragraphs(verb: click.Command) -> Iterator[str]:
    for paragraph in inspect.cleandoc(verb.help or "").split("\n\n"):
        # Click's mark for lines that stay as they are.
        first, *lines = paragraph.splitlines() or [""]
        if first == "\b":
            yield from (".. code-block:: none", "")
            yield from (*(f"   {line}" for line in lines), "")
        else:
            yield from (_escape(" ".join(paragraph.split())), "")


def _options(verb: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in verb.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield from (f"``{record[0]}``", f"   {_escape(record[1])}", "")


def write_man_sources(folder: Path) -> dict[str, str]:
    """
    Write the source of a manual page for each verb.

    :return: Verbs and what they do, in a few words.
    """
    folder.mkdir(exist_ok=True)
    program = click.Context(_program, info_name="kmemdump")
    verbs = {}
    for name in _program.list_commands(program):
        verb = _program.get_command(program, name)
        assert verb is not None
        first = inspect.cleandoc(verb.help or "").split("\n\n")[0]
        verbs[name] = " ".join(first.split()).rstrip(".")
        title = f"kmemdump-{name}"
        lines = (
            ":orphan:",
            "",
            title,
            "=" * len(title),
            "",
            "Synopsis",
            "--------",
            "",
            f".. kmemdump-verb:: {name}",
            "",
            "See also",
            "--------",
            "",
            ":manpage:`kmemdump(1)`",
            "",
        )
        text = "\n".join(lines)
        path = folder / f"{title}.rst"
        # Not touched if nothing changed, so that Sphinx need not read it again.
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return verbs


class _Areas(_Generated):
    def lines(self) -> Iterator[str]:
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 18 42 40", "")
        yield from ("   * - area", "     - what it keeps", "     - questions")
        for area in AREAS:
            asked = ", ".join(f"``{question.text}``" for question in area.questions)
            name = f"``{area.name}``" + ("" if area.default else " (on request)")
            yield from (f"   * - {name}", f"     - {_escape(area.summary)}")
            yield f"     - {asked or 'none: reading them is what attaching does'}"
        yield ""


class _AreaDetails(_Generated):
    def lines(self) -> Iterator[str]:
        for area in AREAS:
            yield from (f"``{area.name}``", *(f"   {line}" for line in _detail(area)))
            yield ""


def _detail(area: Area) -> Iterator[str]:
    yield f"{_escape(area.summary[:1].upper() + area.summary[1:])}."
    for question in area.questions:
        text = inspect.getdoc(question.put) if not question.repeatable else None
        yield from ("", f"* ``{question.text}``" + (f": {text}" if text else ""))
    if area.variables:
        yield from ("", "* variables: " + ", ".join(f"``{v}``" for v in area.variables))


_PARQUET = {
    "text": "string",
    "integer": "int64",
    "yes or no": "boolean",
    "time": "timestamp (µs, UTC)",
    "texts": "list of strings",
}


class _Columns(_Generated):
    def lines(self) -> Iterator[str]:
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 22 20 58", "")
        yield from ("   * - column", "     - type", "     - meaning")
        for column in COLUMNS:
            kind = _PARQUET[column.kind] + ("" if column.required else ", may be null")
            yield from (f"   * - ``{column.name}``", f"     - {kind}")
            yield f"     - {_escape(column.meaning)}"
        yield ""


class _Schema(_Generated):
    required_arguments = 1

    def lines(self) -> Iterator[str]:
        text = files("kmemdump").joinpath(self.arguments[0]).read_text()
        schema = json.loads(text)
        yield from _object("the whole", schema)
        for name, definition in schema["$defs"].items():
            yield from _object(name, definition)


def _object(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield from (f".. rubric:: {name}", "", _escape(schema["description"]), "")
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 22 28 50", "")
    yield from ("   * - field", "     - type", "     - meaning")
    for field, found in schema["properties"].items():
        may = "" if field in schema.get("required", ()) else " (may be absent)"
        yield from (f"   * - ``{field}``", f"     - {_type(found)}{may}")
        words = [found.get("description", "")]
        if "examples" in found:
            words.append("One of " + ", ".join(found["examples"]) + ".")
        yield f"     - {_escape(' '.join(words).strip())}"
    yield ""


def _type(found: dict[str, Any]) -> str:
    if "$ref" in found:
        return str(found["$ref"].rpartition("/")[2])
    if found.get("type") == "array":
        return f"array of {_type(found['items'])}"
    if "const" in found:
        return f"{found['const']}"
    if "enum" in found:
        return " or ".join(map(repr, found["enum"]))
    if "pattern" in found:
        return "hexadecimal string"
    return "time" if found.get("format") == "date-time" else str(found["type"])


def _drop_signature(
    app: Any, what: str, name: str, thing: object, options: object, *texts: str | None
) -> tuple[str | None, str | None]:
    """Leave out what says nothing: a protocol is not called."""
    signature, result = texts
    return (None if signature == "(*args, **kwargs)" else signature), result


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    directives: dict[str, type[Directive]] = {
        "kmemdump-verb": _Verb,
        "kmemdump-areas": _Areas,
        "kmemdump-schema": _Schema,
        "kmemdump-catalogue-columns": _Columns,
        "kmemdump-area-details": _AreaDetails,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    app.connect("autodoc-process-signature", _drop_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
