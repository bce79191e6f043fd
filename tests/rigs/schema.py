# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares a report as JSON with the schema that the manual shows."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker


@cache
def validator() -> Draft202012Validator:
    text = files("kmemdump.report").joinpath("report.schema.json").read_text()
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    # Readers must accept unknown fields; here, all are documented.
    for part in (schema, *schema["$defs"].values()):
        part["additionalProperties"] = False
    return Draft202012Validator(schema, format_checker=FormatChecker())


def check_schema(report: dict[str, Any]) -> None:
    """Fail with the first difference."""
    validator().validate(report)
