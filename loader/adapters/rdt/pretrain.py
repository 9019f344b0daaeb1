"""Steps in RDT's pre-training form: what flatten_episode makes and ``VLAConsumerDataset`` loads from its buffer.

thu-ml/RoboticsDiffusionTransformer, data/episode_transform.py, data/preprocess.py, data/producer.py: save_sample.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from robozarr.loader.adapters.ending import ending
from robozarr.loader.adapters.rdt.dataset import CAMERAS, RDTDataset
from robozarr.loader.arguments import numbers_of

__all__ = ["FIELDS", "RDTSteps"]

FIELDS: Final = (
    "step_id", "state_chunk", "state_chunk_time_mask", "action_chunk", "action_chunk_time_mask", "state_vec_mask",
    "past_frames_0", "past_frames_0_time_mask", "past_frames_1", "past_frames_1_time_mask",
    "past_frames_2", "past_frames_2_time_mask", "past_frames_3", "past_frames_3_time_mask",
    "state_std", "state_mean", "state_norm",
)  # fmt: skip
"""Fields in the order in which save_sample stores them and ``VLAConsumerDataset`` unpacks them."""


class RDTSteps:
    """Every step of every episode, in the form that RDT's buffer holds.

    Parameters
    ----------
    dataset : RDTDataset
        With ``dtype=np.float32`` it gives float32, as upstream; any other is converted.

    Examples
    --------
    >>> import tempfile
    >>> from robozarr.convert import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert("sample", f"{folder}/sample.zarr", workers=0)
    ...     steps = RDTSteps(RDTDataset(f"{folder}/sample.zarr"))
    ...     content, *values = steps.load(2)
    >>> content["instruction"], len(steps), values[1].shape, int(values[2].sum())
    ('Put the bowl on the stove.', 44, (64, 128), 3)
    """

    def __init__(self, dataset: RDTDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Get one step.

        Returns
        -------
        dict
            ``json_content`` and FIELDS: ``state_chunk`` float32 [chunk, 128], the first state repeated before the episode;
            ``action_chunk``, the last one repeated behind it; ``…_time_mask`` bool, false where repeated; ``state_vec_mask``
            float32 [128]; ``past_frames_0`` to ``_3`` uint8 [history, y, x, 3] of the exterior, right wrist, left wrist
            and a fourth camera, [history, 0, 0, 0] where there is none.
        """
        dataset = self.dataset
        read = dataset.windows.read(numbers_of([index], len(dataset), "step"))
        batch = dataset.make(read)
        past, past_mask = dataset.past_states(read)
        step, episode = int(batch["step"][0]), int(batch["episode"][0])
        length, history = int(dataset.store.episodes.length[episode]), dataset.config.history
        in_episode = np.arange(step - history + 1, step + 1) >= 0
        out: dict[str, Any] = {
            # upstream counts steps by the number of the last one (data/preprocess.py: _generate_json_state)
            "json_content": {
                "dataset_name": dataset.name,
                "#steps": length - 1,
                "instruction": capitalize_and_period(batch["instruction"][0]),
            },
            "step_id": np.int32(step),
            "state_chunk": past[0].numpy(),
            "state_chunk_time_mask": past_mask[0].numpy(),
            "action_chunk": batch["actions"][0].numpy(),
            "action_chunk_time_mask": ~batch["actions_is_pad"][0].numpy(),
            "state_vec_mask": batch["state_indicator"][0].numpy(),
        }
        for number in range(4):
            camera = CAMERAS[number] if number < len(CAMERAS) else None
            absent = np.zeros((history, 0, 0, 0), np.uint8)
            out[f"past_frames_{number}"] = absent if camera is None else batch[camera][0].numpy()
            out[f"past_frames_{number}_time_mask"] = in_episode  # of absent cameras too (process_episode)
        out |= {name: batch[name][0].numpy() for name in ("state_std", "state_mean", "state_norm")}
        floats = {name for name, value in out.items() if isinstance(value, np.ndarray) and value.dtype == np.float64}
        return out | {name: out[name].astype(np.float32) for name in floats}

    def load(self, index: int) -> tuple[Any, ...]:
        """One step in the form that ``VLAConsumerDataset._safe_load`` returns: the JSON, then FIELDS in order.

        A step that cannot be read ends the process, unless the data set has ``on_error="raise"``.
        """
        with ending(self.dataset.on_error):
            step = self[index]
        return (step["json_content"], *(step[name] for name in FIELDS))


def capitalize_and_period(text: str) -> str:
    """Capitalise the first letter and add a full stop (data/utils.py).

    >>> capitalize_and_period("pick it up"), capitalize_and_period("Done.")
    ('Pick it up.', 'Done.')
    """
    text = text[:1].upper() + text[1:]
    return text if not text or text.endswith(".") else f"{text}."
