"""RDT's training loop, re-created, with a policy of a few numbers.

thu-ml/RoboticsDiffusionTransformer at deb71d8, train/train.py: the data sets, the DataLoader's options, accelerate's
checkpoints and what is done with each field of a batch. The recipe's lines apply to this file as to that one.
"""

import torch
from accelerate import Accelerator
from torch import nn
from train.dataset import DataCollatorForVLAConsumerDataset, VLAConsumerDataset
from train.sample import log_sample_res


class Policy(nn.Module):
    """Linear in all that RDT is conditioned on."""

    def __init__(self):
        super().__init__()
        self.state, self.image, self.lang = nn.Linear(256, 128), nn.Linear(3, 128), nn.Linear(8, 128)

    def forward(self, lang_tokens, lang_attn_mask, img_tokens, state_tokens, action_mask, ctrl_freqs):
        lang = (self.lang(lang_tokens) * lang_attn_mask[..., None]).sum(dim=1) / lang_attn_mask.sum(dim=1, keepdim=True)
        state = self.state(torch.cat([state_tokens[:, 0], action_mask], dim=-1))
        return (state + lang + self.image(img_tokens.mean(dim=1)) + ctrl_freqs[:, None] / 100)[:, None] * action_mask[:, None]


def train(args):
    """Train a few steps; print losses."""
    accelerator = Accelerator(cpu=True)
    tokenizer = None
    train_dataset = VLAConsumerDataset(
        dataset_type=args.dataset_type, use_hdf5=args.load_from_hdf5, use_precomp_lang_embed=args.precomp_lang_embed
    )
    sample_dataset = VLAConsumerDataset(
        dataset_type=args.dataset_type, use_hdf5=args.load_from_hdf5, use_precomp_lang_embed=args.precomp_lang_embed
    )
    data_collator = DataCollatorForVLAConsumerDataset(tokenizer)
    train_dataloader = torch.utils.data.DataLoader(
        train_dataset,
        batch_size=args.train_batch_size,
        shuffle=True,
        collate_fn=data_collator,
        num_workers=args.dataloader_num_workers,
        persistent_workers=True,
    )
    rdt = Policy()
    optimizer = torch.optim.AdamW(rdt.parameters(), lr=1e-3)
    rdt, optimizer, train_dataloader = accelerator.prepare(rdt, optimizer, train_dataloader)
    global_step = 0
    if args.resume_from_checkpoint:
        accelerator.load_state(f"{args.output_dir}/{args.resume_from_checkpoint}")
        global_step = int(args.resume_from_checkpoint.split("-")[1])
    while global_step < args.max_train_steps:
        for batch in train_dataloader:
            states = batch["states"].float()[:, -1:, :]
            loss = (
                (
                    rdt(
                        lang_tokens=batch["lang_embeds"].float(),
                        lang_attn_mask=batch["lang_attn_mask"],
                        img_tokens=batch["images"].float().mean(dim=(-2, -1)),
                        state_tokens=states,
                        action_mask=batch["state_elem_mask"].float(),
                        ctrl_freqs=batch["ctrl_freqs"],
                    )
                    - batch["actions"].float()
                )
                .square()
                .mean()
            )
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            global_step += 1
            print(f"step {global_step} loss {loss.item():.6f}", flush=True)
            if global_step % args.checkpointing_period == 0:
                accelerator.save_state(f"{args.output_dir}/checkpoint-{global_step}")
            if global_step >= args.max_train_steps:
                break
    log_sample_res(sample_dataset)
