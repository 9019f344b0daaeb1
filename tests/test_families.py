"""Files of every family, from the command line to a training step: convert, verify, report, windows, a gradient."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from charts import words_only

import families
import robozarr
from robozarr.cli import run
from robozarr.convert import convert, verify
from robozarr.convert.sources.layouts.catalogue import ORDER
from robozarr.loader.stream import WindowLoader
from robozarr.schemas.window import WindowSpec

FAMILIES: dict[str, tuple[Callable[..., Path], str, str, str]] = {
    "aloha": (families.write_aloha, "t/episode_0.hdf5", "cam_high", "qpos"),
    "maniskill": (families.write_maniskill, "t.h5", "sensor_data.base_camera.rgb", "agent.qpos"),
    "mimicgen": (families.write_mimicgen, "a.hdf5", "agentview_image", "robot0_joint_pos"),
    "isaaclab": (families.write_isaaclab, "a.hdf5", "table_cam", "joint_pos"),
    "robocasa": (families.write_robocasa, "a.hdf5", "agentview_image", "robot0_joint_pos"),
    "xpolicylab": (families.write_xpolicylab, "episode_0.hdf5", "cam_head.colors", "state.left_arm_joint_states"),
    "robotwin": (families.write_robotwin, "episode0.hdf5", "head_camera.rgb", "actions"),
}
"""Writer, file, a camera, a state."""
SLOW = ("xpolicylab", "mimicgen", "maniskill", "isaaclab", "robocasa", "robotwin")


def train_a_step(store: Path, camera: str, state: str) -> None:
    opened = robozarr.open_store(store)
    spec = WindowSpec({camera: [0], "actions": range(4)} | ({} if state == "actions" else {state: [0]}))
    loader = WindowLoader(robozarr.WindowDataset(opened, spec), 4, images=robozarr.Images())
    seen = 0
    for batch in loader:
        pixels, actions = batch[camera].flatten(1), batch["actions"].flatten(1).float()
        model = torch.nn.Linear(pixels.shape[1], actions.shape[1])
        loss = (model(pixels) - actions).square().mean()
        loss.backward()
        assert model.weight.grad is not None
        assert torch.isfinite(model.weight.grad).all()
        seen += len(pixels)
    assert seen == opened.n_steps


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow(reason="converts and trains") if name in SLOW else ()) for name in FAMILIES],
)
def test_a_family_reports_and_trains(name: str, tmp_path: Path) -> None:
    from robozarr.view.report import report_html

    write, file, camera, state = FAMILIES[name]
    source, store = write(tmp_path / file), tmp_path / "a.zarr"
    convert(source, store, workers=0, instruction="do it")
    assert verify(store, sources=source, workers=0).violations == ()
    with words_only():
        page = report_html(robozarr.open_store(store), chunk=4)
    assert camera in page
    train_a_step(store, camera, state)


def test_channels_first_pictures_are_reported_and_train(tmp_path: Path) -> None:
    source = families.write_isaaclab(tmp_path / "a.hdf5", channels_first=True)
    convert(source, tmp_path / "a.zarr", workers=0, instruction="do it")
    train_a_step(tmp_path / "a.zarr", "table_cam", "joint_pos")


def test_the_command_lists_shows_and_recognises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def layouts(*arguments: object, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as ended:
            run(["layouts", *map(str, arguments)])
        assert ended.value.code == code
        return capsys.readouterr()

    assert [layout["name"] for layout in json.loads(layouts("--json")[0])["layouts"]] == list(ORDER)
    shown, _ = layouts("aloha")
    (tmp_path / "mine.toml").write_text(shown.replace('name = "aloha"', 'name = "mine"'))
    source = families.write_aloha(tmp_path / "t/episode_0.hdf5")
    assert f"{source}: aloha" in layouts(source)[0]
    steering = source.rename(source.with_name("a\x1b[31m.hdf5"))
    assert "a\\x1b[31m.hdf5: aloha" in layouts(steering)[0]
    steering.rename(source)
    assert f"{source}: mine" in layouts(source, "--layout", tmp_path / "mine.toml")[0]
    assert "no layout has this name" in layouts("alhoa", code=2)[1]
    assert all(name in layouts()[0] for name in ORDER)


def test_info_says_what_is_not_known_and_what_decoded_the_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = families.write_aloha(tmp_path / "t/episode_0.hdf5", frames="padded")
    convert(source, tmp_path / "a.zarr", workers=0, instruction="do it")
    with pytest.raises(SystemExit):
        run(["info", str(tmp_path / "a.zarr")])
    said = " ".join(capsys.readouterr().out.split())
    assert "noop, key_moment: the gripper's element of the actions is not known" in said
    assert "a frequency that differs or is unknown" in said
    assert "JPEG by Pillow" in said
