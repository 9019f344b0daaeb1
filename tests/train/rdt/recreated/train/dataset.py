"""RDT's data set and collator, re-created: what they ask of a data set, and what they do with errors.

thu-ml/RoboticsDiffusionTransformer at deb71d8, train/dataset.py: VLAConsumerDataset, DataCollatorForVLAConsumerDataset.
Left out are the buffer's files and locks, noise, augmentation and brightness. The recipe's lines apply to this file, too.
"""

import json
import random
import traceback
from pathlib import Path

import numpy as np
import torch
from data.hdf5_vla_dataset import HDF5VLADataset
from PIL import Image
from torch.utils.data import Dataset

BACKGROUND, SIZE = (127, 127, 127), 32


class VLAConsumerDataset(Dataset):
    """As upstream: ``get_item()`` without an index, or ``_safe_load(index)``; every exception is swallowed."""

    def __init__(self, *, dataset_type="pretrain", use_hdf5=False, use_precomp_lang_embed=False, cond_mask_prob=0.1):
        configs = Path("configs")
        self.control_freq = json.loads((configs / "dataset_control_freq.json").read_text())
        names = "pretrain" if dataset_type == "pretrain" else "finetune"
        self.dataset_name2id = {name: i for i, name in enumerate(json.loads((configs / f"{names}_datasets.json").read_text()))}
        self.cond_mask_prob = cond_mask_prob
        self.use_hdf5 = use_hdf5
        self.hdf5_dataset = None
        if use_hdf5:
            self.hdf5_dataset = HDF5VLADataset()
        self.use_precomp_lang_embed = use_precomp_lang_embed
        self.dataset_stat = json.loads((configs / "dataset_stat.json").read_text())

    def __len__(self):
        return len(self.hdf5_dataset)

    def _masked(self):
        return random.random() <= self.cond_mask_prob

    def __getitem__(self, index):
        while True:
            try:
                if self.use_hdf5:
                    res = self.hdf5_dataset.get_item()
                    content, states, actions = res["meta"], res["state"], res["actions"]
                    state_elem_mask = res["state_indicator"]
                    cameras = ("cam_high", "cam_right_wrist", "cam_left_wrist")
                    images = [(res[camera], res[f"{camera}_mask"]) for camera in cameras]
                    state_norm = res["state_norm"]
                else:
                    (content, _, states, _, actions, _, state_elem_mask, *metas, _std, _mean, state_norm) = self._safe_load(
                        index
                    )
                    images = list(zip(metas[::2], metas[1::2], strict=True))[:3]
                name = content["dataset_name"]
                mean = np.tile(np.array(self.dataset_stat[name]["state_mean"])[None], (states.shape[0], 1))
                item = {
                    "data_idx": self.dataset_name2id[name],
                    "ctrl_freq": 0 if self._masked() else self.control_freq[name],
                    "states": mean if self._masked() else states,
                    "actions": actions,
                    "state_elem_mask": np.zeros_like(state_elem_mask) if self._masked() else state_elem_mask,
                    "state_norm": state_norm,
                    "images": [
                        self._picture(pictures[i], valid[i] and not self._masked())
                        for i in range(2)
                        for pictures, valid in images
                    ],
                }
                if self.use_precomp_lang_embed:
                    if content["instruction"][-1] == ".":
                        content["instruction"] = content["instruction"][:-1]
                    item["lang_embed"] = torch.load(content["instruction"])
                else:
                    item["lang_embed"] = torch.full((len(content["instruction"]), 8), 0.1)
                return {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value for key, value in item.items()}
            except BaseException:
                traceback.print_exc()
                index = (index + 1) % len(self)

    def _picture(self, picture, valid):
        if not valid or picture.size == 0:
            picture = np.full((SIZE, SIZE, 3), BACKGROUND, np.uint8)
        image = Image.fromarray(picture).resize((SIZE, SIZE))
        return torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1) / 255


class DataCollatorForVLAConsumerDataset:
    """Stacks samples; embeddings are padded."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, instances):
        batch = {
            key: torch.stack([one[key] for one in instances]) for key in ("states", "actions", "state_elem_mask", "state_norm")
        }
        batch["images"] = torch.stack([torch.stack(one["images"]) for one in instances])
        batch["ctrl_freqs"] = torch.tensor([one["ctrl_freq"] for one in instances])
        batch["data_indices"] = [one["data_idx"] for one in instances]
        embeds = [one["lang_embed"] for one in instances]
        batch["lang_embeds"] = torch.nn.utils.rnn.pad_sequence(embeds, batch_first=True)
        batch["lang_attn_mask"] = torch.arange(batch["lang_embeds"].shape[1]) < torch.tensor([len(x) for x in embeds])[:, None]
        return batch
