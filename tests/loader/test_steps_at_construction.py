"""What a loader cannot do to the keys of a window it says when it is made, not at the first batch behind a model's load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import robozarr as rz
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import ImageConvention

SPEC = {"agentview_rgb": [0], "joint_states": [0], "actions": range(4)}
Options = Callable[[rz.WindowDataset], dict[str, Any]]


def of_other_keys(dataset: rz.WindowDataset) -> dict[str, Any]:
    return {"normalise": rz.Normalise(keys={"actions": "min_max"}, statistics=dataset.statistics(keys=["joint_states"]))}


def of_unknown_convention(dataset: rz.WindowDataset) -> dict[str, Any]:
    dataset.store.episodes.image_convention[:] = ImageConvention.UNKNOWN
    return {"images": rz.Images()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            lambda _: {"normalise": rz.Normalise(keys={"action": "min_max"})},
            "normalise · keys: must be keys of the window.*action",
        ),
        (of_other_keys, "statistics: of actions too"),
        (lambda _: {"relative": rz.Relative({"actions": "ee_states"})}, "relative · actions: both keys are in the window"),
        (of_unknown_convention, "every episode's convention is known; it is not of 4, such as 0"),
    ],
    ids=["a key outside the window", "statistics of other keys", "relative to a key outside", "pictures of unknown convention"],
)
def test_steps_that_do_not_fit_are_refused_at_once(sample_store: Path, options: Options, words: str) -> None:
    dataset = rz.WindowDataset(rz.open_store(sample_store), rz.WindowSpec(SPEC))
    given = options(dataset)
    with pytest.raises(WindowError, match=words):
        rz.WindowLoader(dataset, 4, **given)
