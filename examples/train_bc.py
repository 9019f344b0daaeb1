"""Behaviour cloning: two cameras and the arm's joints in, a chunk of actions out, every window once per epoch.

python examples/train_bc.py sample.zarr --epochs 3 --checkpoint run.pt      (stopped, the same command continues exactly)
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import robozarr as rz

CAMERAS, CHUNK = ("agentview_rgb", "eye_in_hand_rgb"), 8


class Policy(nn.Module):
    """A small CNN per camera, and a head for the action chunk."""

    def __init__(self, n_joints: int, n_action: int) -> None:
        super().__init__()
        layers = [(nn.Conv2d(a, b, 5, 3), nn.ReLU()) for a, b in ((3, 16), (16, 32), (32, 64))]
        self.see = nn.Sequential(*(layer for pair in layers for layer in pair), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.act = nn.Sequential(nn.Linear(2 * 256 + n_joints, 256), nn.ReLU(), nn.Linear(256, CHUNK * n_action))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Actions [batch, chunk, element], normalised."""
        seen = [self.see(batch[name][:, 0]) for name in CAMERAS]
        return self.act(torch.cat([*seen, batch["joint_states"][:, 0]], 1)).unflatten(1, (CHUNK, -1))  # type: ignore[no-any-return]


def train(path: str, epochs: int, batch_size: int = 16, checkpoint: Path | None = None, max_steps: int = 0) -> list[float]:
    """Train a policy; returns the loss of every step."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = rz.open_store(path)
    # LIBERO records observations after the action: causal=True pairs each with the actions that answer it
    dataset = rz.WindowDataset(store, rz.WindowSpec.act(chunk=CHUNK, states=["joint_states"], causal=True))
    normalise = rz.Normalise(keys={"joint_states": "mean_std", "actions": "min_max"})
    loader = rz.WindowLoader(dataset, batch_size, seed=0, device=device, images=rz.Images(), normalise=normalise)
    policy = Policy(*(store.keys[name].shape[0] for name in ("joint_states", "actions"))).to(device)
    optimizer = torch.optim.AdamW(policy.parameters(), 1e-3)
    parts: dict[str, Any] = {"policy": policy, "optimizer": optimizer, "loader": loader}
    losses: list[float] = []
    for name, state in (torch.load(checkpoint, weights_only=True) if checkpoint and checkpoint.exists() else {}).items():
        parts[name].load_state_dict(state)
    if loader.state_dict()["epoch"] >= epochs:
        print(f"nothing left to do: {epochs} epochs are trained; raise --epochs")
    while (epoch := loader.state_dict()["epoch"]) < epochs:
        first = len(losses)
        for batch in loader:
            loss = (policy(batch) - batch["actions"]).abs().mean(-1)[~batch["actions_is_pad"]].mean()  # without padding
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if checkpoint:
                torch.save({name: part.state_dict() for name, part in parts.items()}, checkpoint)
            if len(losses) == max_steps:
                return losses
            if (n := len(losses) - first) == 1:
                began = time.perf_counter()  # the first step of a process loads kernels: it is no measure of speed
            elif n % 20 == 0:
                print(f"epoch {epoch}, step {n}: loss {losses[-1]:.4f}", flush=True)
        rate, mean = (n - 1) * batch_size / (time.perf_counter() - began), sum(losses[first:]) / n
        print(f"epoch {epoch}: {rate:.0f} windows/s with the training, loss {mean:.4f}", flush=True)
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path", metavar="store", help="made by: robozarr convert sample --store sample.zarr")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--checkpoint", type=Path, help="saved after every step; the same command continues from it")
    train(**vars(parser.parse_args()))
