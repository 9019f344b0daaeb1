# ruff: noqa: F821
"""finetune.py of OpenVLA, re-created: how it makes its data.

openvla/openvla at c8f03f4: vla-scripts/finetune.py. The recipe's lines apply to this file as to that one.
"""

import json
import sys
from types import SimpleNamespace

from loop import collator, train
from prismatic.vla.datasets import RLDSBatchTransform, RLDSDataset
from torch.utils.data import DataLoader


def finetune(cfg):
    """Make the data, and train."""
    batch_transform = RLDSBatchTransform()
    vla_dataset = RLDSDataset(
        cfg.data_root_dir,
        cfg.dataset_name,
        batch_transform,
        resize_resolution=tuple(vla.module.config.image_sizes),
        shuffle_buffer_size=cfg.shuffle_buffer_size,
        image_aug=cfg.image_aug,
    )
    dataloader = DataLoader(
        vla_dataset,
        batch_size=cfg.batch_size,
        sampler=None,
        collate_fn=collator,
        num_workers=0,  # Important =>> Set to 0 if using RLDS; TFDS rolls its own parallelism!
    )
    train(cfg, vla_dataset, dataloader)


if __name__ == "__main__":
    finetune(SimpleNamespace(**json.loads(sys.argv[1])))
