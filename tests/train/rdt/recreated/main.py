"""Stands for main.py: its options, as far as the data go."""

import argparse

from train.train import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--load_from_hdf5", action="store_true")
    parser.add_argument("--precomp_lang_embed", action="store_true")
    parser.add_argument("--dataset_type", default="pretrain")
    parser.add_argument("--resume_from_checkpoint")
    parser.add_argument("--output_dir", default="out")
    parser.add_argument("--max_train_steps", type=int, default=4)
    parser.add_argument("--checkpointing_period", type=int, default=2)
    parser.add_argument("--dataloader_num_workers", type=int, default=1)
    parser.add_argument("--train_batch_size", type=int, default=4)
    train(parser.parse_args())
