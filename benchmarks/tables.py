# SPDX-License-Identifier: GPL-2.0-or-later
"""Figures, printed as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.fleet import Fleet
from benchmarks.looks import LookFigures
from benchmarks.peers import Peers
from benchmarks.scene import Figure, Scene

__all__ = [
    "print_collect",
    "print_fleets",
    "print_looks",
    "print_peers",
    "print_scene",
]


def print_scene(scene: Scene, console: Console) -> None:
    """Print what was measured on one VM."""
    plan = scene.plan
    console.print(
        f"\n[bold]{scene.release}, {plan.cpus} CPUs, {plan.memory} MiB with "
        f"{plan.random} MiB of random data, {plan.tasks} tasks[/]"
    )
    console.print(_dumps(scene.dumps))
    for question, figures in scene.answers.items():
        title = f"From nothing to the answer to {question!r}, whole process"
        console.print(_answers(title, figures))
    console.print(_answers("What other verbs take, whole process", scene.verbs))
    console.print(_marking(scene.marking))
    console.print(_areas(scene))


def print_collect(figures: Sequence[Figure], console: Console) -> None:
    """Print what collecting costs, beside the first figure of each group."""
    table = _table(
        "201 files of 1 GiB together into one",
        *("", "s", "MB/s", "rate", "CPU s", "peak MB"),
    )
    first = figures[0]
    for figure in figures:
        cost = figure.cost
        if cost.problem:
            table.add_row(f"{figure.name}: {cost.problem}")
            continue
        if figure.name.startswith(figures[0].name):
            first = figure
        ratio = figure.size and first.cost.wall / cost.wall
        table.add_row(
            figure.name,
            f"{cost.wall:.3f}",
            f"{figure.size / 1e6 / cost.wall:,.0f}" if figure.size else "",
            f"{ratio:.2f}x" if ratio else "",
            f"{cost.cpu:.3f}",
            f"{cost.peak / 1e6:.0f}" if "the call" in figure.name else "",
        )
    console.print()
    console.print(table)


def print_fleets(fleets: Sequence[Fleet], console: Console) -> None:
    """Print what a watch of many VMs takes."""
    table = _table(
        "One watch of VMs that die at once (copies of one, behind simulated QMP)",
        *("VMs", "build", "CPU s", "own MB", "shared MB", "at rest"),
        *("named s", "all s", "plain s"),
    )
    for it in fleets:
        table.add_row(
            f"{it.count}",
            "known" if it.known else "new",
            f"{it.marked_cpu:.2f}",
            f"{it.own / 1e6:.1f}",
            f"{it.shared / 1e6:.1f}",
            f"{100 * it.rest:.2f} %",
            f"{it.named:.2f}",
            f"{it.finished:.2f}",
            f"{it.plain:.2f}",
        )
    console.print()
    console.print(table)


def print_sealing(figures: Sequence[Figure], console: Console) -> None:
    """Print what sealing costs; each pair begins with what is not sealed."""
    table = _table("From memory to a named file", "", "s", "times", "CPU s", "times")
    for figure in figures:
        if figure.peer:
            plain = figure.cost
        table.add_row(
            figure.name,
            f"{figure.cost.wall:.3f}",
            "" if figure.peer else f"{figure.cost.wall / plain.wall:.2f}x",
            f"{figure.cost.cpu:.3f}",
            "" if figure.peer else f"{figure.cost.cpu / plain.cpu:.2f}x",
        )
    console.print()
    console.print(table)


def print_looks(figures: Sequence[LookFigures], console: Console) -> None:
    """Print what looks cost, and how many young tasks they find memory for."""
    table = _table(
        "CPU ms of a look, where 20 tasks ran since the last one",
        *("", "first", "full", "refresh", "stopped", "MB", "young tasks", "stacks"),
    )
    for it in figures:
        times = (it.first, it.full, it.again, it.still)
        table.add_row(
            f"{it.release}, {it.tasks} tasks",
            *(f"{time * 1000:.0f}" for time in times),
            f"{it.memory / 1e6:.0f}",
            f"{it.structures} of {it.young}",
            f"{it.stacks} of {it.young}",
        )
    console.print()
    console.print(table)


def print_peers(found: Peers, console: Console) -> None:
    """Print what other tools leave, and what is said of it."""
    table = _table(
        f"From death to a whole file, {found.memory} MiB with {found.random} MiB of "
        "random data",
        *("", "s", "copying s", "MB", "MiB set aside"),
    )
    for peer in found.peers:
        table.add_row(
            peer.name,
            f"{peer.seconds:.1f}",
            "" if peer.copying is None else f"{peer.copying:.2f}",
            f"{peer.size / 1e6:,.3f}",
            f"{peer.reserved >> 20}",
        )
    console.print()
    console.print(table)
    table = _table("From the file to a summary, whole process", "", "of", "s", "CPU s")
    for it in found.summaries:
        cost = it.cost
        figures = (f"{cost.wall:.1f}", f"{cost.cpu:.1f}")
        problem = cost.problem.partition(":")[0]
        table.add_row(it.name, it.of, *((problem,) if problem else figures))
    console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        # The first column names things, the others are numbers.
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _times(figure: Figure, ours: float, value: float) -> str:
    if not figure.peer or not ours or not value:
        return ""
    return f"{value / ours:,.0f}x" if value >= 10 * ours else f"{value / ours:.1f}x"


def _dumps(figures: Sequence[Figure]) -> Table:
    table = _table(
        "From death to a named file", "", "s", "times", "CPU s", "times", "MB", "times"
    )
    ours = figures[0]
    for figure in figures:
        if figure.cost.problem:
            table.add_row(figure.name, figure.cost.problem)
            continue
        table.add_row(
            figure.name,
            f"{figure.cost.wall:.3f}",
            _times(figure, ours.cost.wall, figure.cost.wall),
            f"{figure.cost.cpu:.3f}" if figure.cost.cpu else "",
            _times(figure, ours.cost.cpu, figure.cost.cpu),
            f"{figure.size / 1e6:,.1f}",
            _times(figure, ours.size, figure.size),
        )
    return table


def _answers(title: str, figures: Sequence[Figure]) -> Table:
    table = _table(title, "", "s", "times", "CPU s", "times", "peak MB")
    ours = figures[0].cost
    for figure in figures:
        cost = figure.cost
        if cost.problem:
            table.add_row(f"{figure.name}: {cost.problem}")
            continue
        table.add_row(
            figure.name,
            f"{cost.wall:.2f}",
            _times(figure, ours.wall, cost.wall),
            f"{cost.cpu:.2f}",
            _times(figure, ours.cpu, cost.cpu),
            f"{cost.peak / 1e6:.0f}",
        )
    return table


def _marking(figures: Sequence[Figure]) -> Table:
    table = _table("Marking a running VM", "", "s", "CPU s", "peak MB", "MB marked")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.cost.wall:.3f}",
            f"{figure.cost.cpu:.3f}",
            f"{figure.cost.peak / 1e6:.0f}",
            f"{figure.size / 1e6:.1f}" if figure.size else "",
        )
    return table


def _areas(scene: Scene) -> Table:
    table = _table("What each area adds", "", "regions", "bytes", "ms", "complete")
    for area in scene.areas:
        packed = " (to be packed)" if area["packed"] else ""
        table.add_row(
            area["name"],
            f"{area['regions']:,}",
            f"{area['bytes']:,}{packed}",
            f"{area['seconds'] * 1e3:.0f}",
            "yes" if area["reason"] is None else f"no: {area['reason']}",
        )
    return table
