"""Print facts about a store on the command line: compact, aligned tables. Imports rich, and nothing that draws."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape as escape_markup
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from robozarr.schemas.visible import visible
from robozarr.store.summary import StoreSummary
from robozarr.view.coverage import MEASURES, Coverage
from robozarr.view.tails import Tails
from robozarr.view.words import key_shape, printable, share_words, size_words, task_title, unit_words

__all__ = ["print_coverage", "print_info", "print_tails"]

ALIGNMENTS = {"after": "observations after the action", "before": "observations before the action"}
"""When observations of a step were recorded, by the name of the alignment."""
CONVENTIONS = {"opengl": "bottom row first (opengl)", "opencv": "top row first (opencv)"}
"""Which way up pictures are stored, by the name of the convention."""
NARROW = 100
"""Columns of a terminal below which the simulated shares are left out, so that a row stays on one line."""
N_LINES = 20
"""Most tasks, sources and unstored things that are listed, each; ``--json`` lists all."""


def escape(text: str) -> str:
    """Escape text of a store for the console: markup, and control characters."""
    return escape_markup(visible(text))


def print_info(summary: StoreSummary, console: Console) -> None:
    """Print a store at a glance: counts, then facts about episodes, keys, tasks, sources."""
    frequency = "a frequency that differs or is unknown" if summary.control_freq is None else f"{summary.control_freq:g} Hz"
    ratio = summary.decoded_bytes / max(1, summary.stored_bytes)
    console.print(f"[bold]{escape(summary.path)}[/]")
    facts = Table.grid(padding=(0, 2))
    facts.add_row(
        "[dim]holds[/]",
        f"{summary.n_tasks:,} tasks · {summary.n_episodes:,} episodes · {summary.n_steps:,} steps at {frequency}",
    )
    facts.add_row(
        "[dim]size[/]",
        f"{size_words(summary.stored_bytes)} on disk for {size_words(summary.decoded_bytes)} of data (ratio {ratio:.2f})",
    )
    facts.add_row(
        "[dim]written by[/]",
        f"{escape(summary.software)}, format {summary.format_version}, profile {summary.profile} (codec {summary.codec})",
    )
    facts.add_row("[dim]identity[/]", escape(summary.identity))
    flags = (f"{name} {n:,} ({share_words(n / max(1, summary.n_steps))})" for name, n in summary.flags.items())
    no_gripper = "" if "noop" in summary.flags else " · noop, key_moment: the gripper's element of the actions is not known"
    facts.add_row("[dim]flagged steps[/]", " · ".join(flags) + no_gripper)
    for title, counts in (
        ("recorded", {ALIGNMENTS.get(name, name): n for name, n in summary.alignment.items()}),
        ("pictures", {CONVENTIONS.get(name, name): n for name, n in summary.image_convention.items()}),
        ("instructions", summary.instructions),
        ("success", summary.success),
        ("splits", summary.splits),
    ):
        if any(counts.values()):
            facts.add_row(f"[dim]{title}[/]", _counts(counts))
    console.print(facts)
    keys = _table("key", "role", "dtype", ">shape", ">size", ">ratio", "unit")
    for key in summary.keys:
        keys.add_row(
            escape(key.name),
            key.role,
            key.dtype,
            key_shape(key),
            size_words(key.stored_bytes),
            f"{key.ratio:.2f}",
            escape(unit_words(key.unit) + (f" · {key.decoded}" if key.decoded else "")),
        )
    console.print("", keys)
    tasks = _table(">task", "suite", "instruction", ">episodes", ">steps")
    for number, task in enumerate(summary.tasks[:N_LINES]):
        words = escape(printable(task.instruction)) if task.instruction else f"[dim]{task_title(task)}[/]"
        tasks.add_row(str(number), escape(printable(task.suite)), words, f"{task.n_episodes:,}", f"{task.n_steps:,}")
    console.print("", tasks)
    _more(console, len(summary.tasks), "tasks")
    if without := summary.instructions["none"]:
        console.print(
            f"[yellow]{without:,} of {summary.n_episodes:,} episodes have no instruction[/]: no source states one → convert "
            "with --instruction TEXT or --instructions FILE"
        )
    sources = _table("source", ">size", ">demos")
    for entry in summary.sources[:N_LINES]:
        sources.add_row(escape(entry["name"]), size_words(entry["size"]), f"{entry['n_demos']:,}")
    console.print("", sources)
    _more(console, len(summary.sources), "sources")
    for entry in summary.not_stored[:N_LINES]:
        console.print(escape(f"not stored: {entry['path']} of {entry['source']}: {entry['reason']}"))
    _more(console, len(summary.not_stored), "that are not stored")


def print_tails(tails: Tails, console: Console) -> None:
    """Where the last key moments lie, counted from the end, and what a loader that drops tails never starts from."""
    if not tails.known:
        console.print("[dim]Key moments: no element of the actions is known as the gripper's command.[/]", "")
        return
    if not tails.left:
        console.print("[dim]Key moments: the gripper's command changes in no episode.[/]", "")
        return
    left = sorted(tails.left)
    middle = left[(len(left) - 1) // 2]
    console.print(
        f"Steps left after the {tails.moment}: {left[0]:,} to {left[-1]:,}, median {middle:,}; {len(left):,} of "
        f"{tails.n_episodes:,} episodes have one. A loader that takes t in [0, T − C) starts no window from it where "
        "fewer than C steps are left."
    )
    table = _table("action chunk C", *(f">{chunk}" for chunk in tails.by_chunk))
    table.add_row(f"episodes whose {tails.moment} never begins a window", *map(share_words, tails.by_chunk.values()))
    console.print("", table, "")
    if tails.warning is not None:
        console.print(
            f"[yellow]warning: {tails.warning}[/] of such a loader → take windows at every step, padded and masked, as "
            "WindowLoader does; docs/experiments/tail.md shows what it costs",
            "",
        )


def print_coverage(coverage: Coverage, console: Console) -> None:
    """Print shares seen per epoch, computed and (where there is room) simulated, and a bar for the last epoch."""
    narrow = console.width < NARROW
    by = {"steps": "its number of steps", "demos": "its number of demos", "equal": "all alike"}[coverage.weights]
    console.print(
        f"{coverage.n_steps:,} windows, {coverage.draws:,} draws per epoch, action chunk C = {coverage.chunk}. Random "
        f"sampling: a file by {by}, a demo, t in [0, T − C). Enumeration: every t once per epoch."
    )
    table = _table(
        "sampling",
        "seen",
        ">of",
        *(f">epoch {epoch}" for epoch in coverage.epochs),
        ">never",
        f"after epoch {coverage.epochs[-1]}",
        gap=1 if narrow else 2,
    )
    for column in table.columns[:-1]:
        column.no_wrap = True  # the bars get what room there is
    for kind, shares, simulated in (
        ("random", coverage.random, coverage.random_simulated),
        ("enumerated", coverage.enumerated, coverage.enumerated_simulated),
    ):
        for name in MEASURES:
            pairs = zip(shares[name], simulated[name], strict=True)
            each = (share_words(a) if narrow else f"{share_words(a)} [dim]({share_words(b)})[/]" for a, b in pairs)
            never = share_words(coverage.never[name]) if kind == "random" else "0%"
            table.add_row(kind, name, f"{coverage.members[name]:,}", *each, never, Bar(shares[name][-1]))
    console.print("", table, "")
    run = f"Each pair: expected by formula, and one run with seed {coverage.seed}."
    if narrow:
        run = f"Expected by formula; a terminal of {NARROW} columns, or --json, shows one run with seed {coverage.seed} too."
    console.print(f"[dim]{run} never: the share that random sampling cannot see, however long it draws.[/]")
    for name, words in MEASURES.items():
        console.print(f"[dim]{name}: {words}[/]")


class Bar:
    """A share in [0, 1] as a bar that fills its column; nothing for NaN."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From 5 to 20 characters, as there is room."""
        return Measurement(5, 20).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it as wide as the column became."""
        if self.share == self.share:
            full = round(self.share * options.max_width)
            yield Text.assemble(("█" * full, "blue"), ("░" * (options.max_width - full), "dim"))


def _table(*columns: str, gap: int = 2) -> Table:
    """A table without lines; columns whose heading begins with > are right-aligned."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, gap, 0, 0))
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def _counts(counts: Mapping[str, int]) -> str:
    return " · ".join(f"{escape(name)}: {n:,} episode{'s' * (n != 1)}" for name, n in counts.items() if n)


def _more(console: Console, n: int, what: str) -> None:
    if n > N_LINES:
        console.print(f"[dim]… and {n - N_LINES:,} {what} more: --json lists all[/]")
