"""Make docs/augment.webp from a store: ``python docs/augment.py libero.zarr``; then look at it.

One picture as it is stored, upright; then five epochs of each preset, and what evaluation sees.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import robozarr as rz
from robozarr.loader.device.augmenting.draws import keys_of_windows
from robozarr.loader.device.augmenting.steps import ColourJitter, RandomShift

DOCS = Path(__file__).parent
GAP, LABEL, SEED = 4, 150, 12


def main(path: str) -> None:
    """Draw the picture."""
    dataset = rz.WindowDataset(path, {"agentview_rgb": [0]})
    loader = rz.WindowLoader(dataset, len(dataset), shuffle=False, images=rz.Images())
    x = next(iter(loader))["agentview_rgb"][10:11]
    size = x.shape[-1]
    presets = {
        "diffusion_policy\nrobomimic\n(crop=(116, 116))": rz.Augment.robomimic(crop=(116, 116)),
        "openvla": rz.Augment.openvla(),
        "rdt": rz.Augment.rdt(),
        "openpi(size=(128, 128))": rz.Augment.openpi(size=(128, 128)),
        "RandomShift(8),\nColourJitter": rz.Augment((RandomShift(8), ColourJitter.around(0.3, 0.4, 0.5, 0.05))),
        "act": rz.Augment.act(),
    }
    columns = ["as stored", *(f"epoch {epoch}" for epoch in range(5)), "evaluation"]
    page = Image.new("RGB", (LABEL + (size + GAP) * len(columns), 20 + (size + GAP) * len(presets)), "white")
    draw = ImageDraw.Draw(page)
    for number, name in enumerate(columns):
        draw.text((LABEL + number * (size + GAP), 4), name, "black")
    for row, (name, augment) in enumerate(presets.items()):
        draw.text((4, 24 + row * (size + GAP)), name, "black")
        keys = [keys_of_windows(SEED, epoch, 0, np.array([0]), np.array([10])) for epoch in range(5)]
        pictures = [x, *(augment.changed(x, "agentview_rgb", key) for key in keys)]
        pictures.append(augment.evaluation().changed(x, "agentview_rgb", keys[0]))
        for number, picture in enumerate(pictures):
            page.paste(_image(picture), (LABEL + number * (size + GAP), 20 + row * (size + GAP)))
    page.save(DOCS / "augment.webp", quality=80, method=6)


def _image(x: torch.Tensor) -> Image.Image:
    return Image.fromarray((x[0, 0].movedim(0, -1).clamp(0, 1) * 255).round().to(torch.uint8).numpy())


if __name__ == "__main__":
    main(sys.argv[1])
