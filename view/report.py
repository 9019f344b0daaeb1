"""Write the report: a store on one self-contained HTML page. Collects the values of ``report.html.jinja``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from robozarr.schemas.index import StepFlag
from robozarr.schemas.instructions import InstructionSource
from robozarr.store.opened import Store
from robozarr.store.summary import StoreSummary, summarise
from robozarr.store.whole_file import whole_file
from robozarr.view.charts import actions_chart, brightness_chart, coverage_chart, lengths_chart, median_length
from robozarr.view.coverage import MEASURES, measure_coverage
from robozarr.view.pictures import cameras, image_tag, orientation, to_rgb
from robozarr.view.problems import find_problems
from robozarr.view.rows import read_rows
from robozarr.view.tails import measure_tails
from robozarr.view.theme import Chart
from robozarr.view.words import key_shape, share_words, size_words, task_title, unit_words

__all__ = ["report_html", "write_report"]

N_PICTURES: Final = 480
"""Most pictures of a report: each takes 6 kB, and reading them takes half of its 10 s."""
N_TASKS: Final = 200
"""Most tasks that are listed; further ones are left out."""
N_CHANNELS: Final = 32
"""Most channels per key in the statistics; further ones are left out."""
N_SOURCES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """One picture of a task."""

    tag: Markup
    caption: str


def report_html(store: Store, *, chunk: int = 64) -> str:
    """The report as one HTML page that loads nothing from a network.

    Parameters
    ----------
    store : Store
    chunk : int
        Length of the action chunk that coverage is computed for.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        size=size_words, share=share_words, shape=key_shape, number=_number, chart=_chart, unit=unit_words
    )
    summary = summarise(store)
    coverage, tails = measure_coverage(store, chunk=chunk), measure_tails(store, chunk=chunk)
    grey = [name for name in cameras(store) if store.keys[name].dtype == "uint8"]
    charts = [
        lengths_chart(store.episodes.length, summary.control_freq),
        actions_chart(read_rows(store, "actions", range(store.n_steps))),
        *([brightness_chart(store, grey)] if grey else []),
    ]
    return environment.get_template("report.html.jinja").render(
        summary=summary,
        ratio=summary.decoded_bytes / max(1, summary.stored_bytes),
        findings=find_problems(store),
        tasks=list(_tasks(store, summary)),
        n_tasks_hidden=max(0, store.n_tasks - N_TASKS),
        orientations=sorted({orientation(code) for code in store.episodes.image_convention.tolist()}) if cameras(store) else [],
        charts=charts,
        statistics=list(_statistics(store)),
        flags=_flags(store),
        tails=tails,
        coverage=coverage,
        coverage_chart=coverage_chart(coverage, tails),
        measures=MEASURES,
        sources=summary.sources[:N_SOURCES],
        n_sources_hidden=max(0, len(summary.sources) - N_SOURCES),
    )


def write_report(store: Store, path: str | Path, *, chunk: int = 64) -> int:
    """Write the report to `path`, whole or not at all; returns its size in bytes."""
    data = report_html(store, chunk=chunk).encode()
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return len(data)


def _tasks(store: Store, summary: StoreSummary) -> Iterator[dict[str, Any]]:
    """Facts and thumbnails of each task, from its first episode."""
    names, episodes = cameras(store), store.episodes
    n_tasks = min(store.n_tasks, N_TASKS)
    n_moments = max(1, min(3, N_PICTURES // max(1, n_tasks * len(names))))
    for task in range(n_tasks):
        members = np.flatnonzero(episodes.task == task)
        length = episodes.length[members]
        with_pictures = names[: max(1, N_PICTURES // n_tasks)]
        yield {
            "number": task,
            "instruction": task_title(summary.tasks[task]),
            "words": " · ".join(_sources_of_words(store, members)),
            "suite": summary.tasks[task].suite,
            "n_episodes": len(members),
            "n_steps": int(length.sum()),
            "lengths": (int(length.min()), median_length(length), int(length.max())),
            "pictures": {name: list(_thumbnails(store, name, int(members[0]), n_moments)) for name in with_pictures},
        }


def _sources_of_words(store: Store, members: NDArray[np.int64]) -> list[str]:
    """Sources of the instructions of a task's episodes, in words."""
    codes = np.unique(store.episodes.instruction_source[members]).tolist()
    words = {InstructionSource.NONE: "no source states an instruction", InstructionSource.BY_HAND: "instruction given by hand"}
    return [words.get(code, f"instruction from: {InstructionSource(code).words}") for code in map(InstructionSource, codes)]


def _thumbnails(store: Store, name: str, episode: int, n: int) -> Iterator[Thumbnail]:
    start, length = int(store.episodes.start[episode]), int(store.episodes.length[episode])
    steps = np.unique(np.linspace(0, length - 1, n).round().astype(int)) if n > 1 else np.array([length // 2])
    frames = to_rgb(store, name, read_rows(store, name, steps + start), int(store.episodes.image_convention[episode]))
    for step, frame in zip(steps.tolist(), frames, strict=True):
        caption = f"t = {step}"
        factor = -(-max(frame.shape[:2]) // 192)  # every n-th pixel of large frames: a thumbnail
        tag = image_tag(frame[::factor, ::factor], f"{name}, episode {episode}, step {step}", lossless=False)
        yield Thumbnail(tag=Markup(tag), caption=caption)  # image_tag escapes


def _statistics(store: Store) -> Iterator[dict[str, Any]]:
    """The statistics of each key that is not ragged, with one row per channel."""
    order = ("mean", "std", "min", "q01", "q99", "max")
    for key in store.metadata.keys:
        if key.ragged:
            continue
        stats = {name: values.reshape(-1) for name, values in store.stats(key.name).items()}
        n = len(stats["n"])
        words = "rgba" if key.frame and n in (3, 4) and key.role == "image" else ""
        yield {
            "name": key.name,
            "unit": unit_words(key.unit),
            "n": int(stats["n"][0]) if n else 0,
            "columns": order,
            "rows": [
                (words[i] if words else str(i), [float(stats[name][i]) for name in order]) for i in range(min(n, N_CHANNELS))
            ],
            "n_hidden": max(0, n - N_CHANNELS),
        }


def _flags(store: Store) -> Sequence[dict[str, Any]]:
    rules = store.metadata.flag_rules.to_json()
    out = []
    for flag in StepFlag:
        name = str(flag.name).lower()
        where = (store.index.flags & int(flag)) != 0
        n_in = int((np.add.reduceat(where, store.episodes.start) > 0).sum())
        out.append(
            {"name": name, "rule": rules[name]["rule"], "n": int(where.sum()), "share": float(where.mean()), "n_episodes": n_in}
        )
    return out


def _number(value: float) -> str:
    """A number with at most six digits, thousands separators, and no trailing zeros."""
    if not np.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.4g}"


def _chart(chart: Chart) -> Markup:
    return Markup(chart.svg())  # matplotlib escapes the texts in its SVG
