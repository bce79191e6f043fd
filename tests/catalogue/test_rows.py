# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows, their schema, and files of several versions and writers."""

import io
import os
import random
from contextlib import suppress
from dataclasses import asdict, fields, replace
from datetime import timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemdump.catalogue.activity import find_activity
from kmemdump.catalogue.known import KnownContents
from kmemdump.catalogue.pages import write_pages
from kmemdump.catalogue.parquet import KEY, SCHEMA, to_table
from kmemdump.catalogue.place import Place
from kmemdump.catalogue.questions import (
    find_groups,
    find_overview,
    find_unread,
    latest_deaths,
)
from kmemdump.catalogue.row import COLUMNS, VERSION, Row, unread_content
from kmemdump.catalogue.store import Catalogue, choose_files
from kmemdump.errors import FormatError, TargetError
from rigs.deaths_rows import made_row

pytestmark = pytest.mark.slow


@pytest.fixture
def catalogue(tmp_path) -> Catalogue:
    return Catalogue(Place(str(tmp_path / "place")))


def contents(catalogue) -> list[str]:
    found = catalogue.ask(lambda it: it.rows("SELECT content FROM deaths ORDER BY 1"))
    return [content for (content,) in found]


def test_a_row_has_the_columns_that_are_documented():
    assert {item.name for item in fields(Row)} == {item.name for item in COLUMNS}
    required = {it.name for it in COLUMNS if it.required}
    assert required == {item.name for item in SCHEMA if not item.nullable}


def test_another_reader_finds_the_same(catalogue):
    row = made_row(1, frames=("ext4_put", "vfs_close"), module=None)
    catalogue.add([row])
    (name,) = catalogue.files()
    table = pq.read_table(catalogue.place.url_of(name))
    assert table.schema.metadata[KEY.encode()] == str(VERSION).encode()
    (found,) = table.to_pylist()
    assert found == asdict(row) | {"frames": ["ext4_put", "vfs_close"]}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_value_is_checked(value):
    for column in COLUMNS:
        record = made_row(1, frames=("a",)).to_json() | {column.name: value}
        try:
            row = Row.from_json(record, "the test")
        except FormatError:
            continue
        assert to_table([row]).num_rows == 1
        text = getattr(row, column.name)
        if column.kind == "text" and text is not None:
            assert text.isprintable()


def test_the_same_row_in_two_files_counts_once(catalogue):
    rows = [made_row(number) for number in range(6)]
    catalogue.add(rows[:4])
    catalogue.add(rows[2:])
    catalogue.add(rows[3:5])
    assert contents(catalogue) == sorted(row.content for row in rows)


def test_the_newest_row_counts(catalogue):
    old = made_row(1, signature="old")
    new = replace(old, added=old.added + timedelta(days=1), signature="new")
    for first, second in ((old, new), (new, old)):
        catalogue.add([first, made_row(2)])
        catalogue.add([second, made_row(3), made_row(4)])
        sql = f"SELECT signature FROM deaths WHERE content = '{old.content}'"
        assert catalogue.ask(lambda it, sql=sql: it.rows(sql)) == [("new",)]


def test_a_source_that_can_be_read_now_has_one_row(catalogue):
    unread = made_row(
        1, content=unread_content("/srv/1.core", "host"), kind=None, signature=None
    )
    other = replace(unread, content=unread_content("/x", "host"), source="/x")
    later = made_row(1, added=unread.added + timedelta(days=1))
    catalogue.add([unread, other])
    assert len(contents(catalogue)) == 2
    catalogue.add([later])
    assert contents(catalogue) == sorted([later.content, other.content])


def test_files_without_a_newer_column_and_with_one_to_come(catalogue, tmp_path):
    catalogue.add([made_row(1)])
    old = to_table([made_row(2)]).drop_columns(["hardware", "death_id"])
    new = to_table([made_row(3, version=VERSION + 1)])
    new = new.append_column("colour", pa.array(["red"]))
    for name, table in (("old", old), ("new", new)):
        pq.write_table(table, tmp_path / f"place/rows/{name}.parquet")
    assert len(contents(catalogue)) == 3
    assert catalogue.ask(lambda it: it.newer_version()) == VERSION + 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"PAR1 but not really", "bad.parquet"), (None, "no column content")],
)
def test_a_damaged_file_is_named(catalogue, tmp_path, data, problem):
    catalogue.add([made_row(1)])
    path = tmp_path / "place/rows/bad.parquet"
    if data is None:
        for name in catalogue.files():
            catalogue.place.remove(name)
        pq.write_table(pa.table({"a": [1]}), path)
    else:
        path.write_bytes(data)
    with pytest.raises((TargetError, FormatError), match=problem):
        contents(catalogue)


def test_no_catalogue(catalogue):
    with pytest.raises(TargetError, match="no catalogue is there") as caught:
        contents(catalogue)
    adding = f"kmemdump catalogue add SOURCE --to {catalogue.place.url}"
    assert str(caught.value).endswith(f"make one: {adding}")


def test_another_file_system():
    catalogue = Catalogue(Place("memory://deaths/all"))
    rows = [made_row(number) for number in range(3)]
    for row in rows:
        catalogue.add([row])
    catalogue.add_page(rows[0].content, b"<p>report")
    assert contents(catalogue) == sorted(row.content for row in rows)
    assert catalogue.merge(everything=True) == 3
    assert len(catalogue.files()) == 1
    assert contents(catalogue) == sorted(row.content for row in rows)
    assert catalogue.page(rows[0].content) == b"<p>report"
    assert catalogue.page(rows[1].content) is None
    assert catalogue.page("../../etc/passwd") is None


# Merging


def test_many_files_become_few(catalogue):
    for number in range(40):
        catalogue.add([made_row(number), made_row(number + 1)])
        catalogue.merge()
    assert len(catalogue.files()) <= 17
    assert len(contents(catalogue)) == 41


def test_two_that_merge_at_a_time_lose_nothing(catalogue, monkeypatch):
    rows = [made_row(number) for number in range(4)]
    for row in rows:
        catalogue.add([row])
    other = Catalogue(catalogue.place)
    write = Place.put
    merged = []

    def put(place, name, source):
        if not merged:  # The other one is faster.
            merged.append(True)
            other.merge(everything=True)
            catalogue.add([made_row(9)])
            other.merge(everything=True)
        write(place, name, source)

    monkeypatch.setattr(Place, "put", put)
    catalogue.merge(everything=True)
    assert contents(catalogue) == sorted(row.content for row in [*rows, made_row(9)])


def test_a_file_that_vanishes_is_read_where_its_rows_are_now(catalogue):
    for number in range(4):
        catalogue.add([made_row(number)])
    tries = []

    def ask(database):
        tries.append(True)
        if len(tries) == 1:
            Catalogue(catalogue.place).merge(everything=True)
        return database.rows("SELECT count(*) FROM deaths WHERE source LIKE '/srv/%'")

    assert catalogue.ask(ask) == [(4,)]


def test_each_row_moves_seldom():
    files: dict[str, int] = {}
    moved = 0
    for number in range(2000):
        files[f"{number}"] = 1
        chosen = choose_files(files)
        if chosen:
            total = sum(files.pop(name) for name in chosen)
            files[f"m{number}"] = total
            moved += total
    assert sum(files.values()) == 2000
    assert len(files) <= 17
    assert moved < 2000 * 10  # Merging all of them each time: 125 times


def test_sql_of_others(catalogue):
    """The files are for other engines, without kmemdump."""
    catalogue.add([made_row(number) for number in range(5)])
    pattern = catalogue.place.url_of("rows/*.parquet")
    found = duckdb.sql(f"SELECT count(*) FROM '{pattern}' WHERE kind = 'oops'")
    assert found.fetchall() == [(5,)]


def test_what_a_newer_version_wrote_is_not_merged(catalogue):
    """Its columns would be lost: several hosts add, and not all have one version."""
    for number in range(3):
        catalogue.add([made_row(number)])
    table = to_table([made_row(7)]).append_column("cpu_model", pa.array(["x"]))
    catalogue.add_table(table)
    before = set(catalogue.files())
    assert catalogue.merge(everything=True) == 3
    kept = before & catalogue.files().keys()
    assert len(kept) == 1
    data = catalogue.place.read(kept.pop(), 1 << 20)
    assert "cpu_model" in pq.read_schema(io.BytesIO(data)).names
    assert len(contents(catalogue)) == 4


def test_a_folder_that_looks_like_a_column_is_merged(tmp_path):
    catalogue = Catalogue(Place(str(tmp_path / "team=a")))
    for number in range(3):
        catalogue.add([made_row(number)])
    assert catalogue.merge(everything=True) == 3


def test_a_folder_that_has_the_name_of_a_column(tmp_path):
    """DuckDB would take what is behind the = for the value of all rows."""
    catalogue = Catalogue(Place(str(tmp_path / "signature=x/machine=y")))
    for number in range(3):
        catalogue.add([made_row(number)])
    assert catalogue.merge(everything=True) == 3
    found = catalogue.ask(lambda it: it.rows("SELECT signature, machine FROM deaths"))
    signature = made_row(0).signature
    assert sorted(found) == [(signature, f"vm{number}") for number in range(3)]


def answers(catalogue) -> list[object]:
    """Ask all that is asked of a catalogue."""
    KnownContents(catalogue)
    return catalogue.ask(
        lambda it: [
            find_groups(it),
            find_overview(it),
            find_activity(it, [made_row(0).signature]),
            latest_deaths(it, 5, [made_row(0).signature]),
            find_unread(it, 5),
        ]
    )


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("size", pa.array(["abc"])),
        ("content", pa.array([{"a": 1}])),
        ("release", pa.array([5])),
        ("frames", pa.array([[{"a": 1}]])),
    ],
)
def test_a_column_of_another_type_is_named(catalogue, tmp_path, column, values):
    catalogue.add([made_row(1)])
    table = to_table([made_row(2)])
    table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, tmp_path / "place/rows/bad.parquet")
    with pytest.raises(FormatError, match=f"bad.parquet: column {column} is "):
        contents(catalogue)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((name, us) for name in ("added", "died") for us in (1 << 62, -(1 << 62))),
        *((name, (1 << 63) - 1) for name in ("added", "modified")),
        *((name, None) for name in ("added", "content", "source", "complete", "kind")),
        ("content", "zz<script>"),
    ],
)
def test_values_of_others(catalogue, tmp_path, column, value):
    """Rows may be another program's; the others are found all the same."""
    catalogue.add([made_row(1)])
    table = to_table([made_row(2)])
    at = table.schema.get_field_index(column)
    values = pa.array([value], table.schema.field(at).type)
    table = table.set_column(at, column, values)
    pq.write_table(table, tmp_path / "place/rows/bad.parquet")
    groups, *_ = answers(catalogue)
    assert [group.count for group in groups] == [1 if column == "added" else 2]
    write_pages(catalogue, tmp_path / "site")


def test_damage_anywhere(catalogue, tmp_path):
    """A damaged file is named, or some rows are lost."""
    catalogue.add([made_row(number) for number in range(20)])
    [name] = catalogue.files()
    path = tmp_path / "place" / name
    good = path.read_bytes()
    chance = random.Random(1)
    for _ in range(100):
        data = bytearray(good)
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        path.write_bytes(data)
        with suppress(TargetError, FormatError):
            answers(catalogue)


def test_a_page_that_is_none_is_not_waited_for(catalogue, tmp_path):
    """Whoever can write into a catalogue may have put anything there."""
    catalogue.add([made_row(number) for number in range(3)])
    paths = []
    for number in range(3):
        catalogue.add_page(made_row(number).content, b"<p>report")
        content = made_row(number).content
        paths.append(tmp_path / f"place/reports/{content[:2]}/{content}.html.gz")
    fifo, endless, large = paths
    fifo.unlink()
    os.mkfifo(fifo)
    endless.unlink()
    endless.symlink_to("/dev/zero")
    os.truncate(large, 1 << 40)
    for number in range(3):
        with pytest.raises(TargetError, match=r"is no file|more than"):
            catalogue.page(made_row(number).content)
    assert write_pages(catalogue, tmp_path / "site").reports == 0
