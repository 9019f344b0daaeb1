"""What both finetune.py have alike, re-created: the collator, the loop, which prints what it trains on, a small policy.

openvla/openvla at c8f03f4 and moojink/openvla-oft at 213c5ff: prismatic/util/data_utils.py: PaddedCollatorForActionPrediction,
vla-scripts/finetune.py.
"""

import json

import numpy as np
import torch
from prismatic.vla.datasets import IGNORE_INDEX, VOCABULARY
from torch import nn
from torch.nn.utils.rnn import pad_sequence


def collator(instances):
    """Pad and stack, as PaddedCollatorForActionPrediction."""
    out = {
        "input_ids": pad_sequence([one["input_ids"] for one in instances], batch_first=True),
        "labels": pad_sequence([one["labels"] for one in instances], batch_first=True, padding_value=IGNORE_INDEX),
        "pixel_values": torch.stack([one["pixel_values"] for one in instances]),
        "dataset_names": [one["dataset_name"] for one in instances],
        "actions": torch.stack([torch.from_numpy(np.copy(one["actions"])) for one in instances]),
    }
    out["attention_mask"] = out["input_ids"].ne(0)
    if "pixel_values_wrist" in instances[0]:
        out["pixel_values"] = torch.cat(
            (out["pixel_values"], torch.stack([one["pixel_values_wrist"] for one in instances])), dim=1
        )
    if "proprio" in instances[0]:
        out["proprio"] = torch.tensor(np.squeeze(np.stack([one["proprio"] for one in instances])))
    return out


class Policy(nn.Module):
    """Words and pixels → the next token."""

    def __init__(self):
        super().__init__()
        self.words, self.pixels, self.head = nn.Embedding(VOCABULARY, 8), nn.LazyLinear(8), nn.Linear(8, VOCABULARY)

    def forward(self, batch):
        seen = self.pixels(batch["pixel_values"].mean(dim=(-2, -1)))[:, None]
        logits = self.head((self.words(batch["input_ids"]) * batch["attention_mask"][..., None]) + seen)
        labels = batch["labels"][:, 1:].flatten()
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels)


def train(cfg, dataset, dataloader, val_dataloader=None):
    """Train until `max_steps`."""
    print(json.dumps({"windows": len(dataset), "statistics": list(dataset.dataset_statistics)}))
    policy = Policy()
    optimizer = None
    for batch_idx, batch in enumerate(dataloader):
        loss = policy(batch)
        optimizer = optimizer or torch.optim.AdamW(policy.parameters(), lr=1e-2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"loss": loss.item(), "names": batch["dataset_names"], "action": batch["actions"][:, 0].tolist()}))
        if val_dataloader is not None and batch_idx > 0 and batch_idx % cfg.val_freq == 0:
            with torch.no_grad():
                print(json.dumps({"validation": [policy(one).item() for one in val_dataloader]}))
        if batch_idx == cfg.max_steps:
            print(json.dumps({"stopped": batch_idx}))
            break
