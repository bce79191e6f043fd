# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes on the command line."""

import click
import pytest

from kmemdump.cli.shared.retention import retention_options
from kmemdump.cli.shared.sizes import parse_size
from kmemdump.coreimage.retention import Limits
from kmemdump.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4k", 4000),
        ("4KiB", 4096),
        ("500M", 500_000_000),
        ("1.5 GB", 1_500_000_000),
        ("1.05GiB", 1_127_428_915),
        (" 2T ", 2_000_000_000_000),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "-1", "1e9", "G", "1..5G", "5P", "1,5G", "9" * 30]
)
def test_no_sizes(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_size(text)


def parse(*arguments):
    found = []

    @click.command()
    @retention_options
    def command(limits):
        found.append(limits)

    command.main(list(arguments), standalone_mode=False)
    return found[0]


def test_options():
    assert parse() == Limits()
    assert parse("--keep", "3", "--max-bytes", "1G", "--min-free", "0") == Limits(
        3, 10**9, 0
    )


def test_wrong_size():
    with pytest.raises(
        UsageError, match=r"--min-free 'much': expected a size, such as"
    ):
        parse("--min-free", "much")
