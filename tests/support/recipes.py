"""Take the commands and the changed lines of a recipe from the document itself, and run and apply them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

RECIPES: Final = Path(__file__).parents[2] / "docs" / "recipes"
SITE: Final = Path(__file__).parents[1] / "train" / "site"
ROBOMIMIC_0_2: Final = Path(sys.prefix) / "robomimic-0.2.0" / "robomimic"
"""LIBERO's robomimic, beside the newer one of `make test-train`'s environment."""
UPSTREAM: Final = "ROBOZARR_UPSTREAM"
"""Names a folder of checkouts of upstream repositories, which no package registry has."""


def blocks(recipe: str, language: str) -> list[str]:
    """The code blocks of one language of docs/recipes/`recipe`.md, in their order."""
    text = (RECIPES / f"{recipe}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def apply_diff(diff: str, root: Path) -> list[str]:
    """Change files below `root` as a diff says; each run of removed lines has to be there exactly once.

    Lines of a hunk are found by their text, not by their numbers: the recipe names a version, not a commit of each file.
    """
    changed = []
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        path = root / name.strip()
        text = path.read_text()
        for hunk in re.split(r"^@@.*\n", rest, flags=re.MULTILINE):
            lines = [line for line in hunk.splitlines() if not line.startswith("+++ ")]
            old = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("-", " "))
            new = "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("+", " "))
            if old != new:
                assert text.count(old) == 1, f"{name}: {text.count(old)} times:\n{old}"
                text = text.replace(old, new)
        path.write_text(text)
        changed.append(name.strip())
    return changed


def shell(script: str, folder: Path, **environment: str) -> str:
    """Run a recipe's commands in a folder with this environment's programs; what they print. A failing command is an error."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=variables(folder, **environment), capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def variables(folder: Path, **environment: str) -> dict[str, str]:
    """The environment of a run: this Python's programs first, torchvision's operators, no network."""
    return dict(os.environ) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{folder}:{SITE}",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    } | environment  # fmt: skip


def checkout(name: str) -> Path | None:
    """A checkout of an upstream repository, if the environment names a folder of such."""
    folder = os.environ.get(UPSTREAM)
    return Path(folder) / name if folder and (Path(folder) / name).is_dir() else None
