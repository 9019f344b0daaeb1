"""OpenVLA's and OFT's batch transform, re-created, with a tokenizer of words.

openvla/openvla at c8f03f4 and moojink/openvla-oft at 213c5ff: prismatic/vla/datasets/datasets.py: RLDSBatchTransform,
prismatic/vla/action_tokenizer.py.
"""

import zlib

import numpy as np
import torch
from PIL import Image

IGNORE_INDEX, N_BINS, N_WORDS = -100, 256, 64
VOCABULARY = N_WORDS + N_BINS


def action_tokens(action):
    """The last N_BINS tokens of the vocabulary, one an element."""
    bins = np.linspace(-1, 1, N_BINS)
    return [VOCABULARY - number for number in np.digitize(np.clip(action, -1, 1), bins).tolist()]


class RLDSBatchTransform:
    """A sample → token ids, labels of the actions alone, pixels; wrist and proprio for OFT."""

    def __init__(self, use_wrist_image=False, use_proprio=False):
        self.use_wrist_image, self.use_proprio = use_wrist_image, use_proprio

    @staticmethod
    def _pixels(picture):
        image = Image.fromarray(picture).resize((32, 32))
        return torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) / 255

    def __call__(self, rlds_batch):
        actions = rlds_batch["action"]
        lang = rlds_batch["task"]["language_instruction"].decode().lower()
        prompt = f"In: What action should the robot take to {lang}?\nOut:"
        words = [1 + zlib.crc32(word.encode()) % (N_WORDS - 2) for word in prompt.split()]
        answer = [token for action in actions for token in action_tokens(action)]
        input_ids = torch.tensor([*words, *answer, N_WORDS - 1])
        labels = input_ids.clone()
        labels[: -(len(answer) + 1)] = IGNORE_INDEX
        out = {
            "pixel_values": self._pixels(rlds_batch["observation"]["image_primary"][0]),
            "input_ids": input_ids,
            "labels": labels,
            "dataset_name": rlds_batch["dataset_name"],
            "actions": actions,
        }
        if self.use_wrist_image:
            wrist = [self._pixels(value[0]) for name, value in rlds_batch["observation"].items() if "wrist" in name]
            out["pixel_values_wrist"] = torch.cat(wrist)
        if self.use_proprio:
            out["proprio"] = rlds_batch["observation"]["proprio"]
        return out
