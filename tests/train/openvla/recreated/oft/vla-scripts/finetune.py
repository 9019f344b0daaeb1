# ruff: noqa: F821
"""finetune.py of OpenVLA-OFT, re-created: how it makes its data.

moojink/openvla-oft at 213c5ff: vla-scripts/finetune.py. The recipe's lines apply to this file as to that one.
"""

import json
import sys
from types import SimpleNamespace

from loop import collator, train
from prismatic.vla.datasets import RLDSBatchTransform, RLDSDataset
from torch.utils.data import DataLoader

NUM_ACTIONS_CHUNK = 8


def finetune(cfg):
    """Make the data, and train."""
    batch_transform = RLDSBatchTransform(use_wrist_image=True, use_proprio=True)
    train_dataset = RLDSDataset(
        cfg.data_root_dir,
        cfg.dataset_name,
        batch_transform,
        resize_resolution=tuple(vla.module.config.image_sizes),
        shuffle_buffer_size=cfg.shuffle_buffer_size,
        image_aug=cfg.image_aug,
    )
    if cfg.use_val_set:
        val_dataset = RLDSDataset(
            cfg.data_root_dir,
            cfg.dataset_name,
            batch_transform,
            resize_resolution=tuple(vla.module.config.image_sizes),
            shuffle_buffer_size=cfg.shuffle_buffer_size // 10,
            image_aug=cfg.image_aug,
            train=False,
        )
    dataloader = DataLoader(
        train_dataset,
        batch_size=cfg.batch_size,
        sampler=None,
        collate_fn=collator,
        num_workers=0,  # Important: Set to 0 if using RLDS, which uses its own parallelism
    )
    if cfg.use_val_set:
        val_batch_size = cfg.batch_size
        val_dataloader = DataLoader(
            val_dataset,
            batch_size=val_batch_size,
            sampler=None,
            collate_fn=collator,
            num_workers=0,  # Important: Set to 0 if using RLDS, which uses its own parallelism
        )
    train(cfg, train_dataset, dataloader, val_dataloader if cfg.use_val_set else None)


if __name__ == "__main__":
    finetune(SimpleNamespace(**json.loads(sys.argv[1])))
