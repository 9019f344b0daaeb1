"""A small policy on states that predicts a chunk of actions, and its training on batches of ``WindowLoader``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tail.schemes import KEYS

__all__ = ["HISTORY", "Policy", "Scale", "features", "observed", "train"]

F32 = NDArray[np.float32]

HISTORY: Final = 2
"""Steps that the policy sees: the last one and the one before."""
WIDTH: Final = 256
N_ACTION: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scale:
    """Means and standard deviations by which observations and actions are normalised; the same for every scheme."""

    mean: torch.Tensor
    """float32 [n_features]"""
    std: torch.Tensor
    action_mean: torch.Tensor
    """float32 [7]; 0 and 1 for the gripper, whose commands are −1 and 1."""
    action_std: torch.Tensor

    @classmethod
    def of(cls, seen: torch.Tensor, actions: torch.Tensor) -> Scale:
        """Of all training steps: `seen` [n, n_features], `actions` [n, 7]."""
        action_mean, action_std = actions.mean(0), actions.std(0, correction=0) + 1e-2
        action_mean[6], action_std[6] = 0.0, 1.0
        return cls(mean=seen.mean(0), std=seen.std(0, correction=0) + 1e-2, action_mean=action_mean, action_std=action_std)


def observed(batch: dict[str, Any]) -> torch.Tensor:
    """What the policy sees of a batch, side by side: float32 [b, steps, 23]."""
    return torch.cat([batch[name].float() for name in KEYS], dim=-1)


def features(seen: torch.Tensor) -> torch.Tensor:
    """Add where bowl, plate and hand lie relative to each other: [..., 23] → [..., 32]."""
    hand, bowl, plate = seen[..., 0:3], seen[..., 11:14], seen[..., 20:23]
    return torch.cat([seen, bowl - hand, plate - hand, plate - bowl], dim=-1)


class Policy(nn.Module):
    """Three hidden layers: two steps of features → a chunk of normalised actions [b, chunk, 7]."""

    def __init__(self, chunk: int, scale: Scale) -> None:
        super().__init__()
        self.chunk, self.scale = chunk, scale
        sizes = [HISTORY * len(scale.mean), WIDTH, WIDTH, WIDTH]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.GELU())]
        self.net = nn.Sequential(*hidden, nn.Linear(WIDTH, chunk * N_ACTION))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Normalised actions for what is seen [b, 2, 23]."""
        x = (features(seen) - self.scale.mean) / self.scale.std
        out: torch.Tensor = self.net(x.flatten(1))
        return out.view(-1, self.chunk, N_ACTION)

    @torch.no_grad()
    def act(self, seen: NDArray[np.floating[Any]]) -> F32:
        """The chunk of actions for one moment: seen float [2, 23] → float32 [chunk, 7]."""
        out = self(torch.from_numpy(seen.astype(np.float32))[None])[0]
        actions: F32 = (out * self.scale.action_std + self.scale.action_mean).numpy()
        return actions

    def save(self, path: Path) -> None:
        """Write it; appears whole or not at all."""
        scale = {name: getattr(self.scale, name) for name in ("mean", "std", "action_mean", "action_std")}
        part = path.with_suffix(".part")
        torch.save({"chunk": self.chunk, "scale": scale, "net": self.net.state_dict()}, part)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read what `save` wrote."""
        saved = torch.load(path, weights_only=True)
        policy = cls(saved["chunk"], Scale(**saved["scale"]))
        policy.net.load_state_dict(saved["net"])
        return policy.eval()


def train(
    batches: Iterable[dict[str, Any]], scale: Scale, *, chunk: int, seed: int, n_steps: int, mask: bool = True
) -> tuple[Policy, NDArray[np.int64]]:
    """Train a policy by behaviour cloning (L1) for a number of gradient steps.

    Parameters
    ----------
    batches : batches of ``WindowLoader``, without end
    mask : bool
        True: actions beyond the episode's end, which repeat its last one, do not count.

    Returns
    -------
    policy : Policy
    anchors : int64 [n_steps · batch, 2]
        Episode and step of every window that was served.
    """
    torch.manual_seed(seed)
    policy = Policy(chunk, scale)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1.0, (s + 1) / 200) * 0.5 * (1 + float(np.cos(np.pi * min(1.0, s / n_steps))))
    )
    served = []
    for batch in islice(batches, n_steps):
        actions = (batch["actions"].float() - scale.action_mean) / scale.action_std
        error = (policy(observed(batch)) - actions).abs()
        counts = ~batch["actions_is_pad"] if mask else torch.ones_like(batch["actions_is_pad"])
        loss = (error * counts[..., None]).sum() / (counts.sum() * N_ACTION)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        served.append(torch.stack([batch["episode"], batch["step"]], 1).numpy().copy())
    return policy.eval(), np.concatenate(served)
