"""A page, a plot or statistics that cannot be written: one line, and the file that was there before."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import robozarr as rz
from robozarr.schemas.errors import StoreError
from robozarr.store.whole_file import whole_file
from robozarr.view.theme import Chart


def page(store: rz.Store, path: Path) -> None:
    from robozarr.view import report

    report.write_report(store, path)


def plot(store: rz.Store, path: Path) -> None:
    from matplotlib.figure import Figure

    Chart(title="a plot", figure=Figure()).save(path, format="png")


def statistics(store: rz.Store, path: Path) -> None:
    rz.WindowDataset(store, rz.WindowSpec({"actions": [0]})).statistics().save(path)


@pytest.mark.parametrize("write", [page, plot, statistics])
def test_a_full_disk(
    sample_store: Path, tmp_path: Path, write: Callable[[rz.Store, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.html"
    path.write_text("before")

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("robozarr.view.report.report_html", lambda store, chunk: "page")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match=r"a\.html: cannot be written, and is as it was: No space left on device → make room"):
        write(rz.open_store(sample_store), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.html"]
    assert path.read_text() == "before"


def test_an_interrupt_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def interrupted() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "before"
