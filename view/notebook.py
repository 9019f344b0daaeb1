"""Show a store in a notebook: counts, keys, tasks with one picture each. Reads tables and few frames."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from robozarr.store.opened import Store
from robozarr.store.summary import StoreSummary, summarise
from robozarr.view.pictures import cameras, image_tag, orientation, to_rgb
from robozarr.view.rows import read_rows
from robozarr.view.words import key_shape, size_words, task_title, unit_words

__all__ = ["store_html"]

N_TASKS_SHOWN = 12


def store_html(store: Store) -> str:
    """A store as HTML."""
    summary = summarise(store)
    hz = "control frequency differs or is unknown" if summary.control_freq is None else f"{summary.control_freq:g} Hz"
    ratio = summary.decoded_bytes / max(1, summary.stored_bytes)
    return (
        f"<div><h3>{html.escape(store.path)}</h3><p>{summary.n_tasks:,} tasks · {summary.n_episodes:,} episodes · "
        f"{summary.n_steps:,} steps · {hz} · {size_words(summary.stored_bytes)} on disk for "
        f"{size_words(summary.decoded_bytes)} of data ({ratio:.2f}×) · profile {summary.profile} ({summary.codec})</p>"
        f"{_keys(summary)}{_tasks(store, summary)}</div>"
    )


def _keys(summary: StoreSummary) -> str:
    rows = [
        (
            key.name,
            key.role,
            key.dtype,
            key_shape(key),
            unit_words(key.unit),
            summary.codec,
            size_words(key.stored_bytes),
            f"{key.ratio:.2f}×",
        )
        for key in summary.keys
    ]
    return _table(("key", "role", "dtype", "shape of a step", "unit", "codec", "size", "ratio"), rows)


def _tasks(store: Store, summary: StoreSummary) -> str:
    """The tasks; for each, the middle step of its first episode from every camera."""
    names, body, conventions = cameras(store), [], set()
    for number, task in enumerate(summary.tasks[:N_TASKS_SHOWN]):
        episode = store.episodes.task.tolist().index(number)
        convention = int(store.episodes.image_convention[episode])
        row = int(store.episodes.start[episode] + store.episodes.length[episode] // 2)
        conventions.add(convention)
        pictures = "".join(
            image_tag(to_rgb(store, name, read_rows(store, name, [row]), convention)[0], f"{name}, episode {episode}", width=96)
            for name in names
        )
        cells = (str(number), task.suite, task_title(task), f"{task.n_episodes:,}", f"{task.n_steps:,}")
        body.append(f'<tr>{_cells(cells)}<td style="white-space:nowrap">{pictures}</td></tr>')
    more = len(summary.tasks) - N_TASKS_SHOWN
    note = f"<p><small>… and {more} more tasks: <code>store.tasks</code></small></p>" if more > 0 else ""
    if names:
        note += f"<p><small>Pictures are {'; '.join(orientation(code) for code in sorted(conventions))}.</small></p>"
    head = "".join(
        f'<th style="text-align:left">{name}</th>' for name in ("task", "suite", "instruction", "episodes", "steps", "")
    )
    return (
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>{note}'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    names = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in head)
    return f'<div style="overflow-x:auto"><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(texts: Iterable[str]) -> str:
    return "".join(f'<td style="text-align:left">{html.escape(text)}</td>' for text in texts)
