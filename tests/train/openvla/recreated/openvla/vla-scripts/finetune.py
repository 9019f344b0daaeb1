# ruff: noqa: E402, F821
"""finetune.py of OpenVLA, re-created: how it makes its data, and its loop, with a policy of a few numbers.

openvla/openvla at c8f03f4: vla-scripts/finetune.py. The recipe's lines apply to this file as to that one.
"""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[2]))
import transforms

sys.modules["prismatic"] = sys.modules["prismatic.vla"] = ModuleType("prismatic")
sys.modules["prismatic.vla.datasets"] = transforms
from prismatic.vla.datasets import RLDSBatchTransform, RLDSDataset

NUM_ACTIONS_CHUNK = 8


class Policy(nn.Module):
    """Words and pixels → the next token."""

    def __init__(self):
        super().__init__()
        self.words, self.pixels, self.head = (
            nn.Embedding(transforms.VOCABULARY, 8),
            nn.LazyLinear(8),
            nn.Linear(8, transforms.VOCABULARY),
        )

    def forward(self, input_ids, attention_mask, pixel_values, labels):
        seen = self.pixels(pixel_values.mean(dim=(-2, -1)))[:, None]
        logits = self.head((self.words(input_ids) * attention_mask[..., None]) + seen)
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def finetune(cfg):
    """Train to `max_steps`; print losses and how the data were."""
    collator = transforms.collator
    batch_transform = RLDSBatchTransform()
    vla_dataset = RLDSDataset(
        cfg.data_root_dir,
        cfg.dataset_name,
        batch_transform,
        resize_resolution=tuple(vla.module.config.image_sizes),
        shuffle_buffer_size=cfg.shuffle_buffer_size,
        image_aug=cfg.image_aug,
    )
    print(json.dumps({"windows": len(vla_dataset), "statistics": list(vla_dataset.dataset_statistics)}))
    dataloader = DataLoader(
        vla_dataset,
        batch_size=cfg.batch_size,
        sampler=None,
        collate_fn=collator,
        num_workers=0,  # Important =>> Set to 0 if using RLDS; TFDS rolls its own parallelism!
    )
    policy = Policy()
    optimizer = None
    for batch_idx, batch in enumerate(dataloader):
        loss = policy(batch["input_ids"], batch["attention_mask"], batch["pixel_values"], batch["labels"])
        optimizer = optimizer or torch.optim.AdamW(policy.parameters(), lr=1e-2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps({"loss": loss.item(), "names": batch["dataset_names"], "action": batch["actions"][:, 0].tolist()}))
        if batch_idx == cfg.max_steps:
            print(json.dumps({"stopped": batch_idx}))
            break


if __name__ == "__main__":
    finetune(SimpleNamespace(**json.loads(sys.argv[1])))
