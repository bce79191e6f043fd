# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares what we print as JSON with the schemas that the manual shows."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker


@cache
def validator(name: str) -> Draft202012Validator:
    """Return what compares a record with a schema of the package."""
    text = files("kmemdump").joinpath(name).read_text()
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    # Readers must accept unknown fields; here, all are documented.
    for part in (schema, *schema["$defs"].values()):
        part["additionalProperties"] = False
    return Draft202012Validator(schema, format_checker=FormatChecker())


def check_schema(report: dict[str, Any]) -> None:
    """Fail with the first difference of a report."""
    validator("report/report.schema.json").validate(report)


def check_event(event: dict[str, Any]) -> None:
    """Fail with the first difference of an event of a watch."""
    validator("watch/event.schema.json").validate(event)
