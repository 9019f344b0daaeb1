"""Augmentation: beside torchvision's and TensorFlow's numbers, presets beside their sources, the same after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

import robozarr as rz
from robozarr.convert import convert
from robozarr.loader.device.augmenting import geometry
from robozarr.loader.device.augmenting.colours import ADJUST
from robozarr.loader.device.augmenting.draws import keys_of_pictures, keys_of_windows, uniform
from robozarr.loader.device.augmenting.noise import Corrupt
from robozarr.loader.device.augmenting.steps import (
    Choice,
    ColourJitter,
    Drawn,
    RandomCrop,
    RandomResizedCrop,
    RandomRotation,
    RandomShift,
    Resize,
)
from robozarr.schemas.errors import WindowError
from synthetic import write_libero

ELSEWHERE = json.loads((Path(__file__).parent / "colours_elsewhere.json").read_text())
"""What torchvision 0.29.1's _functional_tensor and tensorflow-cpu 2.21.0's tf.image made of `picture`."""
SPEC = {"agentview_rgb": [-1, 0], "eye_in_hand_rgb": [0], "actions": [0]}


def picture(h: int, w: int) -> torch.Tensor:
    i = np.arange(h * w * 3).reshape(h, w, 3)
    return torch.from_numpy(((i * 37 + i * i * 11) % 256 / 255).astype(np.float32)).permute(2, 0, 1)[None]


def drawn(*numbers: float, n: int = 1) -> Drawn:
    host = np.tile(np.array(numbers, np.float64), (n, 1))
    return Drawn(host, torch.from_numpy(host))


# --- each change beside those who made it ---


@pytest.mark.parametrize("case", [name for name in ELSEWHERE if "resize" not in name])
def test_colours_are_those_of_torchvision_and_tensorflow(case: str) -> None:
    whose, kind, factor = case.split()
    x = picture(4, 5).repeat(2, 1, 1, 1)
    got = ADJUST[whose][kind](x, torch.tensor([float(factor), 0.0 if kind == "hue" else 1.0]))  # type: ignore[index]
    expected = np.array(ELSEWHERE[case]["values"]).reshape(ELSEWHERE[case]["shape"])
    assert np.abs(got[0].permute(1, 2, 0).numpy() - expected).max() < 2e-5
    if not (whose == "tensorflow" and kind == "brightness"):
        assert (got[1] - x[1]).abs().max() < 1e-5  # a factor of 1, a turn of 0: as it was


def test_resize_is_torchvisions_and_the_box_is_tensorflows() -> None:
    found = ELSEWHERE["torchvision resize 5 7"]
    got = geometry.resize(picture(9, 11), 5, 7)[0].permute(1, 2, 0).numpy()
    assert np.abs(got - np.array(found["values"]).reshape(found["shape"])).max() < 1e-5
    found = ELSEWHERE["tensorflow crop_and_resize 0.03 0.01"]
    side = 0.9**0.5
    box = RandomResizedCrop()(picture(9, 11), drawn(0.5, 0.5, 0.03 / (1 - side), 0.01 / (1 - side)))
    assert np.abs(box[0].permute(1, 2, 0).numpy() - np.array(found["values"]).reshape(found["shape"])).max() < 1e-5


@pytest.mark.parametrize(("kind", "enhance"), [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")])
def test_colours_of_bytes_are_pils_but_for_rounding(kind: str, enhance: str) -> None:
    x = (picture(12, 10)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    for factor in (0.6, 1.3):
        expected = np.asarray(getattr(ImageEnhance, enhance)(Image.fromarray(x)).enhance(factor), np.int64)
        jitter = ColourJitter(**{kind: (factor, factor)}, order="fixed")  # type: ignore[arg-type]
        got = rz.Augment((jitter,)).changed(torch.from_numpy(x)[None, None], "a", np.zeros(1, np.uint64), channels_first=False)
        assert got.dtype == torch.uint8
        assert np.abs(got[0, 0].numpy().astype(np.int64) - expected).max() <= 2


def test_crops_and_shifts_are_slices() -> None:
    x = torch.arange(5 * 3 * 6 * 7).reshape(5, 3, 6, 7).float()
    u = np.random.default_rng(0).random((5, 2))
    for last in (True, False):
        got = RandomCrop(4, 5, last=last)(x, Drawn(u, torch.from_numpy(u)))
        for i in range(5):
            top, left = int(u[i, 0] * (2 + last)), int(u[i, 1] * (2 + last))
            assert torch.equal(got[i], x[i, :, top : top + 4, left : left + 5])
    moved = RandomShift(2)(x, Drawn(u, torch.from_numpy(u)))
    for i in range(5):
        dy, dx = (int(v * 5) - 2 for v in u[i])
        padded = np.pad(x[i].numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
        assert np.array_equal(moved[i].numpy(), padded[:, 2 + dy : 8 + dy, 2 + dx : 9 + dx])
    centre = RandomCrop(4, 5).centre()
    assert centre is not None
    assert torch.equal(centre(x, drawn(n=5)), x[:, :, 1:5, 1:6])


def test_a_turn_by_a_right_angle_is_exact_and_none_is_none() -> None:
    x = picture(6, 6)
    assert (RandomRotation(90)(x, drawn(0.5)) - x).abs().max() < 1e-6
    turned = RandomRotation(90)(x, drawn(1.0))
    rotated = [torch.rot90(x, k, (2, 3)) for k in (1, 3)]
    assert min(float((turned - one).abs().max()) for one in rotated) < 1e-5


@pytest.mark.parametrize("order", ["random", "fixed"])
def test_jitter_of_a_batch_is_that_of_each_picture(order: Any) -> None:
    x, rng = torch.rand(40, 3, 5, 6, generator=torch.Generator().manual_seed(0)), np.random.default_rng(1)
    u = rng.random((40, 5))
    jitter = ColourJitter(brightness=(0.5, 1.5), contrast=(0.4, 1.6), saturation=(0.2, 2), hue=(-0.3, 0.3), order=order)
    whole = jitter(x, Drawn(u, torch.from_numpy(u)))
    kinds = ("brightness", "contrast", "saturation", "hue")
    from itertools import permutations

    orders = list(permutations(range(4)))
    for i in range(40):
        one = x[i : i + 1]
        for k in orders[int(u[i, 4] * 24)] if order == "random" else range(4):
            low, high = getattr(jitter, kinds[k])
            one = ADJUST["torchvision"][kinds[k]](one, torch.tensor([low + u[i, k] * (high - low)], dtype=torch.float32))  # type: ignore[index]
        assert (whole[i] - one[0]).abs().max() < 1e-5


def test_noise_is_as_large_as_imgaugs_and_blur_keeps_the_mean() -> None:
    x = torch.full((3000, 3, 8, 8), 0.5)
    u = np.random.default_rng(2).random((3000, 10))
    u[:, 5] = 0  # no blur
    out = Corrupt()(x, Drawn(u, torch.from_numpy(u))) - 0.5
    each = out.std(dim=(1, 2, 3)).numpy()
    kind, strength = (u[:, 1] * 3).astype(int), u[:, 2] * 0.05
    assert np.median(each[kind == 0] / strength[kind == 0]) == pytest.approx(1, abs=0.05)  # gaussian: its deviation
    assert np.median(each[kind == 1] / strength[kind == 1]) == pytest.approx(2**0.5, abs=0.08)  # Laplace: √2 of its scale
    mean = strength[kind == 2] * 255
    assert np.median(each[kind == 2] * 255 / np.sqrt(mean + mean**2)) == pytest.approx(1, abs=0.08)  # Poisson, either sign
    alike = (out[:, 0] == out[:, 1]).all(dim=-1).all(dim=-1).numpy()
    assert alike.mean() == pytest.approx(0.5, abs=0.05)  # half of them: all channels alike
    u[:, 5], u[:, 2] = 1, 0  # blur, no noise
    flat = Corrupt()(x[:200], Drawn(u[:200], torch.from_numpy(u[:200])))
    assert (flat - 0.5).abs().max() < 1e-5


def test_choice_by_probability() -> None:
    x, u = torch.full((4000, 1, 2, 2), 0.5), np.random.default_rng(3).random((4000, 6))
    darker, lighter = (ColourJitter(brightness=(f, f), order="fixed") for f in (0.5, 1.5))
    out = Choice(((0.25, (darker,)), (0.5, (lighter,))))(x, Drawn(u, torch.from_numpy(u)))[:, 0, 0, 0].numpy()
    shares = [float((np.abs(out - value) < 1e-6).mean()) for value in (0.25, 0.75, 0.5)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_numbers_are_even_and_independent() -> None:
    keys = keys_of_windows(7, 3, 0, np.repeat(np.arange(40), 50), np.tile(np.arange(50), 40))
    a, b = (uniform(keys_of_pictures(keys, camera, None), 0, 2) for camera in ("agentview_rgb", "eye_in_hand_rgb"))
    for numbers in (a[:, 0], a[:, 1], b[:, 0]):
        observed = np.histogram(numbers, bins=20, range=(0, 1))[0]
        assert ((observed - 100) ** 2 / 100).sum() < 44  # chi-squared, 99.9% of 19 degrees of freedom
    correlation = np.asarray(np.corrcoef(np.stack([a[:, 0], a[:, 1], b[:, 0]])))
    assert abs(correlation[np.triu_indices(3, 1)]).max() < 0.08
    others = keys_of_windows(7, 4, 0, np.repeat(np.arange(40), 50), np.tile(np.arange(50), 40))
    assert not np.isin(keys, others).any()


# --- presets ---


def test_presets_hold_their_sources_numbers() -> None:
    crop = RandomCrop(76, 76, last=False)
    assert rz.Augment.diffusion_policy().steps == rz.Augment.robomimic().steps == (crop,)
    assert rz.Augment.diffusion_policy().per == "frame"
    box, colours = rz.Augment.openvla().steps
    assert (box, rz.Augment.openvla().per) == (RandomResizedCrop((0.9, 0.9), (1.0, 1.0)), "window")
    assert colours == ColourJitter(
        brightness=(-0.2, 0.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.05, 0.05), order="fixed", space="tensorflow"
    )
    (choice,) = rz.Augment.rdt().steps
    assert isinstance(choice, Choice)
    assert sum(p for p, _ in choice.branches) == pytest.approx(0.5)
    jitter = ColourJitter(brightness=(0.7, 1.3), contrast=(0.6, 1.4), saturation=(0.5, 1.5), hue=(-0.03, 0.03))
    assert [steps for _, steps in choice.branches] == [(Corrupt(),), (jitter,), (jitter, Corrupt())]
    assert rz.Augment.act().steps == ()
    assert [type(step) for step in rz.Augment.openpi().steps] == [Resize, RandomCrop, Resize, RandomRotation, ColourJitter]
    assert rz.Augment.openpi().steps[1] == RandomCrop(212, 212, evaluated=False)
    assert rz.Augment.openpi().evaluation().steps == (Resize(224, 224), Resize(224, 224))
    assert [type(step) for step in rz.Augment.openpi(wrist=True).steps] == [Resize, ColourJitter]


def test_evaluation_is_the_middle() -> None:
    assert rz.Augment.robomimic().evaluation().steps == (RandomCrop(76, 76, last=False, middle=True),)
    assert rz.Augment.rdt().evaluation().steps == ()
    x = torch.rand(3, 2, 3, 20, 20)
    keys = np.arange(3, dtype=np.uint64)
    centre = rz.Augment.openvla().evaluation()
    first, second = (centre.changed(x, "a", keys + np.uint64(n)) for n in (0, 9))
    assert torch.equal(first, second)
    edge = (1 - 0.9**0.5) / 2 * 19  # openvla_utils.py: center_crop_image, the box around the middle
    assert first[0, 0, 0, 0, 0] != x[0, 0, 0, 0, 0]
    y = int(edge)
    near = x[0, 0, 0, y : y + 2, y : y + 2]
    assert near.min() <= first[0, 0, 0, 0, 0] <= near.max()


# --- in the loader ---


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> rz.Store:
    folder = tmp_path_factory.mktemp("augment")
    write_libero(folder / "s/a_demo.hdf5", lengths=(9, 8), size=12, depth=True)
    convert(folder / "s", folder / "a.zarr", workers=0)
    return rz.open_store(folder / "a.zarr")


@pytest.fixture(scope="module")
def dataset(store: rz.Store) -> rz.WindowDataset:
    return rz.WindowDataset(store, rz.WindowSpec(SPEC))


EVERYTHING = rz.Augment(
    (RandomCrop(10, 10), RandomResizedCrop((0.5, 1), (0.8, 1.2)), ColourJitter.around(0.3, 0.3, 0.3, 0.1), Corrupt()),
    per="frame",
)


def by_window(batches: Any) -> dict[tuple[int, int], dict[str, NDArray[Any]]]:
    found = {}
    for batch in batches:
        for i, (e, t) in enumerate(zip(batch["episode"].tolist(), batch["step"].tolist(), strict=True)):
            found[e, t] = {name: batch[name][i].numpy().copy() for name in ("agentview_rgb", "eye_in_hand_rgb")}
    return found


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(one[w][name], other[w][name]) for w in other for name in other[w])


ONE_MORE = [
    pytest.param(images, marks=pytest.mark.slow(reason="six epochs of augmented pictures in one more form"))
    for images in (rz.Images(scale=False), rz.Images(channels_first=False))
]


@pytest.mark.parametrize("images", [rz.Images(), None, *ONE_MORE])
def test_a_window_looks_the_same_in_any_batch_rank_and_after_a_resume(
    dataset: rz.WindowDataset, images: rz.Images | None
) -> None:
    def make(batch_size: int, **options: Any) -> rz.WindowLoader:
        return rz.WindowLoader(dataset, batch_size, seed=4, images=images, augment=EVERYTHING, **options)

    loader = make(4)
    epochs = [by_window(loader), by_window(loader)]
    assert len(epochs[0]) == len(dataset)
    assert not same(epochs[0], epochs[1])
    ranks: dict[Any, Any] = {}
    for rank in range(2):
        ranks |= by_window(make(3, rank=rank, world_size=2))
    assert same(epochs[0], ranks)
    begun = make(5)
    batches = iter(begun)
    served = by_window([next(batches), next(batches)])
    resumed = make(2)
    resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
    rest = by_window(resumed)
    assert not served.keys() & rest.keys()
    assert same(epochs[0], served | rest)
    assert same(epochs[1], by_window(resumed))
    assert not same(epochs[0], by_window(rz.WindowLoader(dataset, 4, seed=5, images=images, augment=EVERYTHING)))
    plain = next(iter(rz.WindowLoader(dataset, 4, seed=4, images=images)))
    changed = next(iter(make(4)))
    assert plain["agentview_rgb"].dtype == changed["agentview_rgb"].dtype
    assert set(plain) == set(changed)
    assert torch.equal(plain["actions"], changed["actions"])


def test_a_dataloaders_pictures_are_the_loaders(dataset: rz.WindowDataset) -> None:
    loader = rz.WindowLoader(dataset, 4, seed=3, augment=EVERYTHING)
    epochs = [by_window(loader), by_window(loader)]
    by_torch = rz.WindowDataLoader(dataset, 5, seed=3, augment=EVERYTHING)
    in_order = rz.WindowDataLoader(dataset, 5, order={"seed": 3}, augment={"agentview_rgb": EVERYTHING})
    for epoch in epochs:  # the last batch too, with which the state is in the next epoch
        assert same(epoch, by_window(by_torch))
        for window, pictures in by_window(in_order).items():
            assert np.array_equal(pictures["agentview_rgb"], epoch[window]["agentview_rgb"])
            assert not np.array_equal(pictures["eye_in_hand_rgb"], epoch[window]["eye_in_hand_rgb"])


@pytest.mark.parametrize("make", [rz.WindowLoader, rz.WindowDataLoader])
def test_a_state_of_another_augmentation_is_refused(dataset: rz.WindowDataset, make: Any) -> None:
    state = make(dataset, 4, augment=rz.Augment((RandomCrop(8, 8),))).state_dict()
    make(dataset, 3, augment=rz.Augment((RandomCrop(8, 8),))).load_state_dict(json.loads(json.dumps(state)))
    for other in (None, rz.Augment((RandomCrop(8, 9),)), {"agentview_rgb": rz.Augment((RandomCrop(8, 8),))}):
        with pytest.raises(WindowError, match=r"of this augmentation; saved with .*RandomCrop\(height=8, width=8"):
            make(dataset, 4, augment=other).load_state_dict(state)
        make(dataset, 4, augment=other).load_state_dict({name: state[name] for name in state if name != "augment"})


def test_uint8_channels_last_is_the_same_change_as_floats(dataset: rz.WindowDataset) -> None:
    augment = rz.Augment.openvla()
    floats = next(iter(rz.WindowLoader(dataset, 4, images=rz.Images(upright=False), augment=augment)))
    stored = next(iter(rz.WindowLoader(dataset, 4, augment=augment)))
    assert stored["agentview_rgb"].dtype == torch.uint8
    difference = stored["agentview_rgb"].movedim(-1, -3).float() - 255 * floats["agentview_rgb"]
    assert difference.abs().max() <= 0.501


def test_frames_of_a_window_alike_or_each_by_itself(dataset: rz.WindowDataset) -> None:
    x = torch.rand(1, 1, 3, 12, 12).repeat(6, 2, 1, 1, 1)
    keys = keys_of_windows(0, 0, 0, np.zeros(6, np.int64), np.arange(6))
    alike = rz.Augment((RandomCrop(6, 6),)).changed(x, "a", keys)
    assert torch.equal(alike[:, 0], alike[:, 1])
    assert not torch.equal(alike[0], alike[1])
    apart = rz.Augment((RandomCrop(6, 6),), per="frame").changed(x, "a", keys)
    assert not torch.equal(apart[:, 0], apart[:, 1])
    assert not torch.equal(alike, rz.Augment((RandomCrop(6, 6),)).changed(x, "b", keys))


def test_by_hand_as_by_the_loader(dataset: rz.WindowDataset) -> None:
    augment = rz.Augment((RandomCrop(8, 8), ColourJitter.around(0.3)))
    by_loader = next(iter(rz.WindowLoader(dataset, 6, seed=2, images=rz.Images(), augment=augment)))
    plain = next(iter(rz.WindowLoader(dataset, 6, seed=2, images=rz.Images())))
    by_hand = augment(plain, ["agentview_rgb", "eye_in_hand_rgb"], seed=2, epoch=0)
    assert torch.equal(by_hand["agentview_rgb"], by_loader["agentview_rgb"])
    assert torch.equal(by_hand["eye_in_hand_rgb"], by_loader["eye_in_hand_rgb"])


def test_by_camera_and_normalised_after(dataset: rz.WindowDataset) -> None:
    of_camera = {"agentview_rgb": rz.Augment((RandomCrop(8, 8),))}
    normal = rz.Normalise(keys={"agentview_rgb": "mean_std"})
    batch = next(iter(rz.WindowLoader(dataset, 6, images=rz.Images(), augment=of_camera, normalise=normal)))
    assert batch["agentview_rgb"].shape == (6, 2, 3, 8, 8)
    assert batch["eye_in_hand_rgb"].shape == (6, 1, 3, 12, 12)


REFUSED: dict[str, tuple[Any, str]] = {
    "no Augment": (lambda ds: rz.WindowLoader(ds, 2, augment="openvla"), r"loader · augment: Augment\(…\)"),  # type: ignore[arg-type]
    "augment of other samples": (
        lambda ds: rz.WindowDataLoader(ds, 2, windows=ds, augment=rz.Augment(())),
        "of the batches of a WindowDataset",
    ),
    "no Augment for a DataLoader": (lambda ds: rz.WindowDataLoader(ds, 2, augment="rdt"), r"loader · augment: Augment\(…\)"),  # type: ignore[arg-type]
    "no step": (lambda ds: rz.Augment(("crop",)), "augment · steps"),  # type: ignore[arg-type]
    "per": (lambda ds: rz.Augment((), per="batch"), "per is 'window' or 'frame'"),  # type: ignore[arg-type]
    "a name for a list": (lambda ds: rz.Augment((), "agentview_rgb"), "cameras is a list"),  # type: ignore[arg-type]
    "no camera": (lambda ds: rz.WindowLoader(ds, 2, augment=rz.Augment((), ("wrist",))), "got wrist"),
    "actions": (lambda ds: rz.WindowLoader(ds, 2, augment={"actions": rz.Augment(())}), "got actions"),
    "a crop too large": (
        lambda ds: next(iter(rz.WindowLoader(ds, 2, augment=rz.Augment.robomimic()))),
        r"pictures, \[12, 12\]",
    ),
    "a range": (lambda ds: ColourJitter(hue=(-0.6, 0.1)), r"hue: two numbers in \[-0\.5, 0\.5\]"),
    "descending": (lambda ds: RandomResizedCrop((0.9, 0.5)), "ascending"),
    "a size": (lambda ds: RandomCrop(0, 3), "whole numbers of pixels"),
    "probabilities": (lambda ds: Choice(((0.7, ()), (0.7, ()))), "add up to 1"),
    "a space": (lambda ds: ColourJitter(space="pil"), "space 'torchvision' or 'tensorflow'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(dataset: rz.WindowDataset, name: str) -> None:
    make, says = REFUSED[name]
    with pytest.raises(WindowError, match=says):
        make(dataset)


def test_depth_beside_a_moved_picture_is_said(store: rz.Store) -> None:
    dataset = rz.WindowDataset(store, rz.WindowSpec({"agentview_rgb": [0], "agentview_depth": [0]}))
    crop = (RandomCrop(8, 8),)
    with pytest.raises(WindowError, match="depth or labels too, agentview_depth, which stay where they are"):
        rz.WindowLoader(dataset, 2, augment=rz.Augment(crop))
    batch = next(iter(rz.WindowLoader(dataset, 2, augment=rz.Augment(crop, ("agentview_rgb",)))))
    assert batch["agentview_depth"].shape[2:4] == (12, 12)
    next(iter(rz.WindowLoader(dataset, 2, augment=rz.Augment((ColourJitter.around(0.2),)))))  # colours move nothing
