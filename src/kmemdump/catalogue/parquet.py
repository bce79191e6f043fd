# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows as Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from kmemdump.catalogue.row import COLUMNS, VERSION, Row

__all__ = ["KEY", "SCHEMA", "to_parquet", "to_table"]

KEY = "kmemdump.catalogue"
"""Key of the schema's version, in the metadata of each file."""
_TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "yes or no": pa.bool_(),
    "time": pa.timestamp("us", "UTC"),
    "texts": pa.list_(pa.string()),
}
SCHEMA = pa.schema(
    [
        pa.field(column.name, _TYPES[column.kind], nullable=not column.required)
        for column in COLUMNS
    ],
    metadata={KEY: str(VERSION)},
)


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table, in the order of their contents."""
    ordered = sorted(rows, key=lambda row: row.content)
    return pa.Table.from_pylist([asdict(row) for row in ordered], SCHEMA)


def to_parquet(table: pa.Table) -> bytes:
    """Return a file with a table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=122_880)
    data: bytes = sink.getvalue().to_pybytes()
    return data
