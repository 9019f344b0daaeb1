"""Which windows a policy was served: the share of all anchors, of those in the last C steps, and of the releases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from robozarr.store.opened import Store

__all__ = ["releases_of", "share_served"]

I64 = NDArray[np.int64]


def share_served(store: Store, episodes: range, served: I64, *, chunk: int) -> dict[str, float]:
    """Shares in [0, 1] of what was ever an anchor.

    Parameters
    ----------
    episodes : range
        Those of the training.
    served : int64 [n, 2]
        Episode and step of each window that was served.

    Returns
    -------
    dict
        ``anchors``: of all windows of the episodes. ``tails``: of the last `chunk` of each. ``releases``: of the windows whose
        first action is the one that opens the gripper for good.
    """
    start, length = store.episodes.start, store.episodes.length
    seen = np.zeros(store.n_steps, np.bool_)
    seen[start[served[:, 0]] + served[:, 1]] = True
    # the last step of an episode is no anchor: there is no action after its observation
    of_each = [np.arange(start[e], start[e] + length[e] - 1) for e in episodes]
    release = [at for at in releases_of(store, episodes) if at >= 0]
    return {
        "anchors": round(float(seen[np.concatenate(of_each)].mean()), 5),
        "tails": round(float(seen[np.concatenate([rows[-chunk:] for rows in of_each])].mean()), 5),
        "releases": round(float(seen[np.array(release)].mean()), 5) if release else float("nan"),
    }


def releases_of(store: Store, episodes: range) -> list[int]:
    """By episode, the row whose observation comes right before the last command to open; −1 where there is none."""
    closed = np.asarray(store.array("actions"))[:, 6] > 0
    out = []
    for start, length in zip(store.episodes.start[list(episodes)], store.episodes.length[list(episodes)], strict=True):
        opened = np.flatnonzero(closed[start : start + length - 1] & ~closed[start + 1 : start + length])
        out.append(int(start + opened[-1]) if opened.size else -1)
    return out
