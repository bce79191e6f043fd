# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmemdump``: finds the verb, and turns errors into lines and exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from kmemdump.bounds.child import ChildEnded
from kmemdump.cli.shared.bounded import IN_CHILDREN
from kmemdump.cli.shared.completion import complete_as_shells_do
from kmemdump.cli.shared.configuration import config_option, read_usual_places
from kmemdump.cli.shared.messages import print_message, verbose_option
from kmemdump.cli.shared.wrong_use import describe_wrong_use
from kmemdump.errors import ExitCode, KmemdumpError, UsageError
from kmemdump.text import no_such
from kmemdump.version import VERSION

__all__ = ["main"]

_VERBS = {
    "demo": "Mark a kernel in a VM, crash it, and report.",
    "check": "Rehearse a death: would it leave a core image now?",
    "areas": "List what can be marked, and what it costs on a target.",
    "capture": "Mark a target and write its core image now.",
    "watch": "Mark VMs while they run; write a core image when one dies.",
    "mark": "Register regions with firmware or a crash kernel.",
    "status": "Show what watches and agents hold, cost and have seen.",
    "regions": "List what is registered with firmware.",
    "collect": "Make a core image of what firmware or a crash kernel left.",
    "info": "Show what is in a core image, and what opens it.",
    "ask": "Put questions to a core image or target.",
    "report": "Say what happened to the kernel.",
    "catalogue": "Keep many deaths, and see which of them are one bug.",
    "redact": "Remove data from a core image, to give it away.",
    "open": "Start drgn, crash or gdb on a core image.",
    "unseal": "Write what is sealed in a core image to a file.",
}

_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""click 8.1 has none, and prints the help by itself."""


class _Verbs(click.Group):
    """Imports a verb when it is used, so that ``--help`` does not wait for drgn."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = importlib.import_module(f"kmemdump.cli.{cmd_name}")
        command: click.Command = module.command
        _add_common_options(command)
        complete_as_shells_do(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        # An option is refused by click, and a shell completes what there is.
        if not (name in _VERBS or name.startswith("-") or ctx.resilient_parsing):
            raise UsageError(
                f"{no_such('verb', name, _VERBS)}\n'kmemdump --help' lists them"
            )
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(_VERBS.items()))


def _add_common_options(command: click.Command) -> None:
    """Add the options that every verb has."""
    names = {parameter.name for parameter in command.params}
    options = verbose_option(), config_option()
    command.params += [option for option in options if option.name not in names]


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION)
@click.pass_context
def _program(context: click.Context) -> None:
    """
    Mark small areas of a running Linux kernel's memory, so that a dead machine
    still answers.

    A TARGET is live (this machine), a VM (libvirt:DOMAIN, qmp:SOCKET or pid:PID),
    or a file: a raw RAM image, an ELF or kdump-compressed vmcore, LiME, a core image,
    or what firmware left: a folder of md_*.BIN files, a rawdump image.

    For VMs start with check and watch, for a dump that you have with capture and
    report.
    """
    read_usual_places(context)


def main(arguments: Sequence[str] | None = None, *, in_children: bool = False) -> int:
    """
    Run the command line.

    :param in_children: Whether verbs that look at foreign memory do so in a child,
        with limits that hold even in C code. This process must have no other threads.
    :raises ChildEnded: In this process, when its child has ended.
    :return: Exit status: see :class:`kmemdump.errors.ExitCode`.
    """
    try:
        status = _program.main(
            arguments,
            prog_name="kmemdump",
            standalone_mode=False,
            obj=IN_CHILDREN if in_children else None,
        )
        sys.stdout.flush()
    except BrokenPipeError:  # The reader (head, less) has ended.
        return ExitCode.INCOMPLETE
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        # No verb prompts by click, which makes an Abort of any EOFError.
        if isinstance(error.__cause__, EOFError):
            return _report_bug(error.__cause__)
        print_message("stopped")
        return 130
    except click.ClickException as error:
        if isinstance(error, _NO_ARGUMENTS):
            error.show()
        else:
            print_message(f"error: {describe_wrong_use(error)}")
        return ExitCode.USAGE
    except KmemdumpError as error:
        print_message(f"error: {error}")
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print_message(f"error: {where}{error.strerror or error}")
        return ExitCode.UNREADABLE
    except MemoryError:
        print_message(
            "error: not enough memory for what the target claims to hold; "
            "--max-memory allows more"
        )
        return ExitCode.UNREADABLE
    except ChildEnded:
        raise
    except Exception as error:
        return _report_bug(error)
    return int(status or 0)


def _report_bug(error: Exception) -> ExitCode:
    traceback.print_exception(error)
    print_message("a bug of kmemdump: please report the lines above")
    return ExitCode.BUG
