"""Make the entries that a data set needs in RDT's configs folder. Imports no torch itself; writes JSON only.

thu-ml/RoboticsDiffusionTransformer: configs/dataset_stat.json (data/compute_dataset_stat_hdf5.py),
configs/dataset_control_freq.json, configs/finetune_datasets.json, configs/pretrain_datasets.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from robozarr.loader.adapters.rdt.dataset import RDTDataset
from robozarr.loader.adapters.rdt.vector import unify
from robozarr.schemas.errors import StoreError, WindowError
from robozarr.store.whole_file import whole_file

__all__ = ["dataset_stat", "export_rdt", "rdt_entries"]

EPS: Final = 1e-8
"""Largest value that data/compute_dataset_stat_hdf5.py treats as zero."""
STAT, FREQ = "dataset_stat.json", "dataset_control_freq.json"
DATASETS: Final = ("finetune_datasets.json", "pretrain_datasets.json")
"""Lists of names: train/dataset.py reads the one that ``--dataset_type`` names, and that is "pretrain" by default."""


def dataset_stat(dataset: RDTDataset) -> dict[str, Any]:
    """Statistics of the states of all episodes that have windows, by RDT's own rule: lists of 128, as JSON values.

    ``state_std`` is upstream's: about the mean of all values, but over those that are not zero only.
    """
    table, vectors = dataset.windows.table, dataset.vectors
    served = np.repeat(table.served, table.stop - table.start)
    if dataset.config.skip_still:  # as state_only does
        parts = [dataset.get_episode(int(episode))["state"] for episode in np.flatnonzero(table.served)]
        states = np.concatenate(parts).astype(np.float64)
    else:
        states = unify(vectors.state[served], vectors.state_slots)
    if not len(states):
        raise WindowError("rdt · statistics: at least one episode; the filters left none → see dataset.windows.left_out")
    zeroed = np.where(np.abs(states) <= EPS, 0, states)
    n = len(states)
    n_not_zero = np.maximum((np.abs(states) > EPS).sum(axis=0), 1)
    variance = (zeroed**2).sum(axis=0) / n_not_zero - (zeroed.sum(axis=0) / n) ** 2 * (n / n_not_zero)
    return {
        "dataset_name": dataset.name,
        "state_mean": states.mean(axis=0).tolist(),
        "state_std": np.sqrt(np.maximum(variance, 0)).tolist(),
        "state_min": states.min(axis=0).tolist(),
        "state_max": states.max(axis=0).tolist(),
    }


def rdt_entries(dataset: RDTDataset, control_freq: float | None = None) -> dict[str, Any]:
    """File in RDT's configs → this data set's entry.

    Raises
    ------
    WindowError
        If the store's tasks differ in frequency, or it is not known, and none is given.
    """
    known = dataset.store.metadata.control_freq if control_freq is None else control_freq
    if known is None:
        raise WindowError(
            "rdt · control frequency: one for the data set; the store's tasks differ, or it is not known → state it"
        )
    number = int(known) if float(known).is_integer() else float(known)
    return {STAT: dataset_stat(dataset), FREQ: number, **dict.fromkeys(DATASETS, dataset.name)}


def export_rdt(
    dataset: RDTDataset,
    configs: str | Path,
    *,
    control_freq: float | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> dict[str, str]:
    """Put a data set's entries into the files of RDT's configs folder; other entries are kept.

    Parameters
    ----------
    dataset : RDTDataset
    configs : path
        ``configs`` of an RDT checkout. Files that are not there are made.
    control_freq : float, optional
        Steps per second. Default: the store's.
    overwrite : bool
        Replace entries of this name that say something else.
    dry_run : bool
        Write nothing.

    Returns
    -------
    dict
        File → "added", "replaced" or "unchanged".

    Raises
    ------
    StoreError
        If an entry of this name is there and differs, or a file is not what RDT has there. Nothing is written then.
    """
    folder, changes, done = Path(configs), {}, {}
    if not folder.is_dir():
        raise StoreError(f"{folder}: the configs folder of an RDT checkout; no folder is there → pass --configs RDT/configs")
    for file, entry in rdt_entries(dataset, control_freq).items():
        path = folder / file
        there = _read(path, list if file in DATASETS else dict)
        if isinstance(there, list):
            done[file] = "unchanged" if entry in there else "added"
            new: Any = there if entry in there else [*there, entry]
        else:
            old = there.get(dataset.name)
            done[file] = "added" if old is None else "unchanged" if old == entry else "replaced"
            new = {**there, dataset.name: entry}
        if done[file] == "replaced" and not overwrite:
            raise StoreError(f"{path}: has another entry {dataset.name!r} → pass --overwrite, or another --name")
        if done[file] != "unchanged":
            changes[path] = new
    for path, new in {} if dry_run else changes.items():
        with whole_file(path) as partial:
            partial.write_text(json.dumps(new, indent=4) + "\n")
    return done


def _read(path: Path, kind: type) -> Any:
    if not path.exists():
        return kind()
    try:
        value = json.loads(path.read_text())
    except ValueError as exc:
        raise StoreError(f"{path}: JSON; {exc} → mend it, or move it away") from exc
    if not isinstance(value, kind):
        raise StoreError(f"{path}: a JSON {kind.__name__}; found {type(value).__name__} → is this RDT's configs folder?")
    return value
