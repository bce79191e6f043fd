# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump unseal``."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import click

from kmemdump.cli.shared.options import core_option, identity_option
from kmemdump.cli.shared.outputs import check_output, force_option
from kmemdump.errors import UsageError
from kmemdump.files import OpenFile, PartialFile
from kmemdump.sealing import read_sealed, unseal_into
from kmemdump.text import format_size

__all__ = ["command"]


@click.command("unseal")
@click.argument("core", metavar="CORE", type=click.Path(path_type=Path))
@core_option
@identity_option
@force_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    core: Path,
    output: Path,
    identity: tuple[Path, ...],
    force: bool,
    as_json: bool,
) -> int:
    """
    Write what is sealed in CORE to a file, which only its owner can read.

    \b
    kmemdump unseal vm.core -o plain.core --identity ~/.ssh/id_ed25519
    age -d key.age | kmemdump unseal vm.core -o plain.core --identity /dev/stdin

    ask, info, report, open and catalogue need no such file: they take --identity, and
    open CORE in memory. A file of keys has those of age-keygen, or is a private key of
    ssh without a passphrase; several may be named.
    """
    check_output(output, force, core)
    with closing(OpenFile(core)) as file:
        sealed = read_sealed(file)
        if sealed is None:
            raise UsageError(f"{core}: is not sealed")
        with PartialFile(output) as plain:
            unseal_into(plain, file, sealed, identity)
    size = output.stat().st_size
    if as_json:
        click.echo(json.dumps({"core": str(output), "size": size}, indent=2))
    else:
        click.echo(f"{output}: {format_size(size)}, not sealed")
    return 0
