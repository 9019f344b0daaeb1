"""LIBERO's own data sets (libero 0.1.1 from PyPI, whose lifelong/datasets.py is LIBERO's) on files and on the store of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from recipes import ROBOMIMIC_0_2, blocks, shell

SAMPLE = Path(__file__).parents[3] / "sample"

RUN = """
import sys
import numpy as np
import torch
from libero.lifelong.datasets import GroupedTaskDataset, SequenceVLDataset, TruncatedSequenceDataset, get_dataset
from torch.utils.data import ConcatDataset, DataLoader, RandomSampler

folder, tasks = sys.argv[1], sys.argv[2:]
modality = {"rgb": ["agentview_rgb", "eye_in_hand_rgb"], "depth": [], "low_dim": ["gripper_states", "joint_states"]}
torch.manual_seed(0)
# libero/lifelong/main.py: folder and the benchmark's file of each task; configs/data/default.yaml: seq_len 10
made = [get_dataset(f"{folder}/{task}", modality, initialize_obs_utils=(i == 0), seq_len=10) for i, task in enumerate(tasks)]
sets, shapes = [one for one, _ in made], made[0][1]
embeddings = torch.randn(len(tasks), 8)
single = [SequenceVLDataset(one, embedding) for one, embedding in zip(sets, embeddings)]
print("demos", [one.n_demos for one in single], "sequences", [one.total_num_sequences for one in single], shapes)
grouped = GroupedTaskDataset(sets, embeddings)
every = ConcatDataset([*single, grouped, TruncatedSequenceDataset(single[0], 5)])
out = {}
for i in range(len(every)):
    sample = every[i]
    out |= {f"{i} {name}": np.asarray(value) for name, value in (sample["obs"] | {"actions": sample["actions"]}).items()}
np.savez(f"{sys.argv[0]}.npz", **out)

# libero/lifelong/algos/base.py: learn_one_task, with a policy of a few numbers in the place of a transformer
policy = torch.nn.Linear(8 + 9 + 3, 7)
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
for dataset in single:
    for data in DataLoader(dataset, batch_size=4, sampler=RandomSampler(dataset), num_workers=0):
        obs = data["obs"]
        pixels = obs["agentview_rgb"].mean(dim=(3, 4))
        seen = [obs["joint_states"].float(), obs["gripper_states"].float(), pixels]
        loss = (policy(torch.cat([*seen, data["task_emb"][:, None].expand(-1, 10, -1)], -1)) - data["actions"]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.9f}")
"""


def run(folder: Path, script: str, data: str) -> tuple[str, dict[str, np.ndarray]]:
    """What the script prints, and every sample of it; `folder` gets robomimic, files and `script`'s changes first."""
    shutil.copytree(SAMPLE, folder / "datasets", ignore=shutil.ignore_patterns("*.py", "*.md"))
    shutil.copytree(ROBOMIMIC_0_2, folder / "robomimic")
    rows = folder / "robomimic" / "utils" / "dataset.py"
    rows.write_text(rows.read_text().replace("np.bool)", "bool)"))  # which numpy has no more
    (folder / "run.py").write_text(RUN)
    tasks = [file.relative_to(SAMPLE).as_posix() for file in sorted(SAMPLE.rglob("*.hdf5"))]
    assert len(tasks) == 2
    printed = shell(f"{script}\npython run.py {data} {' '.join(tasks)}", folder)
    lines = [line for line in printed.splitlines() if line.startswith(("loss", "demos"))]
    with np.load(folder / "run.py.npz") as found:
        return "\n".join(lines), dict(found)


def test_lifelong_learning_reads_and_trains_alike(tmp_path: Path) -> None:
    [*prepare, _] = blocks("robomimic", "sh")[1].splitlines()
    (tmp_path / "store").mkdir()
    (tmp_path / "files").mkdir()
    script = "\n".join([*prepare, "rm -r datasets"])
    ours, our_samples = run(tmp_path / "store", script, "libero.zarr")
    theirs, their_samples = run(tmp_path / "files", ":", "datasets")
    assert "loss" in ours
    assert ours == theirs
    assert our_samples.keys() == their_samples.keys()
    for name, values in their_samples.items():
        np.testing.assert_array_equal(our_samples[name], values, err_msg=name, strict=True)
