"""A program that ends with loaders, iterations and batches alive says nothing, whatever order modules are taken apart in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
if "dill" in sys.argv:
    import dill
import robozarr as rz
from robozarr.loader.adapters.rdt.dataset import RDTDataset
dataset = rz.WindowDataset(rz.open_store(sys.argv[1]), rz.WindowSpec({"agentview_rgb": [-1, 0], "actions": range(200)}))
loader = rz.WindowLoader(dataset, batch_size=4)
kept = list(loader)
views = [batch["actions"].numpy()[1:] for batch in kept]
left = iter(loader)
next(left)
of_rdt = iter(RDTDataset(sys.argv[1]).loader(8))
vectors = next(of_rdt)
sample = dataset[0]
held = rz.WindowDataset(sys.argv[1], {"agentview_rgb": [0]}, frames_in_memory=True)
print("end")
"""


@pytest.mark.slow(reason="starts of Python")
@pytest.mark.parametrize("more", ["", "dill"])
def test_the_end_of_a_program(more: str, sample_store: Path) -> None:
    """With dill installed four "Exception ignored in" were printed: modules go before the objects that they made."""
    if more:
        pytest.importorskip(more)
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(sample_store), more], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (0, "end\n"), ran.stderr
    assert "ignored" not in ran.stderr, ran.stderr
    assert "Traceback" not in ran.stderr, ran.stderr
