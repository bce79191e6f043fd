# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump redact``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kmemdump.cli.shared.bounded import limit_options
from kmemdump.cli.shared.messages import print_message
from kmemdump.cli.shared.options import (
    TargetOptions,
    core_option,
    identity_option,
    opened_target,
)
from kmemdump.cli.shared.outputs import check_output, force_option
from kmemdump.cli.shared.sealing import seal_options
from kmemdump.errors import ExitCode
from kmemdump.text import printable

if TYPE_CHECKING:
    from kmemdump.sealing import Seal

__all__ = ["command"]

_policy_option = click.option(
    "--policy",
    "policy",
    metavar="share|strict|FILE.toml",
    default="strict",
    show_default=True,
    help="What stays of which kind of data.",
)


@click.command("redact")
@click.argument("target", metavar="CORE")
@core_option
@force_option
@_policy_option
@click.option(
    "--ask",
    "questions",
    multiple=True,
    metavar="QUESTION",
    help="Keep this answerable, too: a crash command, or FILE.py with functions.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@identity_option
@seal_options
@limit_options
def command(
    target: str,
    output: Path,
    force: bool,
    policy: str,
    questions: tuple[str, ...],
    as_json: bool,
    identity: tuple[Path, ...],
    seal: Seal | None,
) -> int:
    """
    Remove data from CORE, ask all questions again, and list what changed.

    \b
    kmemdump redact vm.core -o public.core
    kmemdump redact vm.core -o vendor.core --policy share
    kmemdump redact vm.core -o out.core --policy our-rules.toml

    Each byte goes unless there is a reason to keep it: it is the kernel build's own, a
    number or an address that a question reads, or text that the policy keeps. Then all
    questions are asked again; which answers changed is printed.
    """
    from kmemdump.kernel.user_builds import user_builds
    from kmemdump.questions.parse import parse_questions
    from kmemdump.redaction.policy import load_policy
    from kmemdump.redaction.redact import redact
    from kmemdump.redaction.wording import how, to_json, to_text

    check_output(output, force, target)
    chosen = load_policy(policy)
    wanted = parse_questions(questions)
    with opened_target(target, TargetOptions(None, None, False, identity)) as opened:
        found = redact(
            opened, chosen, questions=wanted, builds=user_builds(os.environ, opened)
        )
        found.save(output, seal)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=2))
    else:
        for line in to_text(found).splitlines():
            click.echo(printable(line))
    for problem in found.problems:
        print_message(f"{target}: could not be looked for: {problem}")
    lost = [it for it in found.changes if how(it) in ("lost", "incomplete")]
    return ExitCode.INCOMPLETE if lost or found.unasked else ExitCode.DONE
