"""Frames that are JPEG or PNG in their source: decoded to exact pixels, by a decoder that the store names."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import few_keys
import h5py
import numpy as np
import pytest
from PIL import Image
from synthetic_parts import Array

import families
import robozarr
from robozarr.convert import convert, verify
from robozarr.convert.sources.pictures import PictureError, decode, decoder_of, picture_header
from robozarr.schemas.errors import SourceError, StoreError
from robozarr.store.locate import place_of
from robozarr.store.reading import read_metadata
from synthetic import write_libero


def one_camera(path: Path, **options: Any) -> Path:
    """An episode of ALOHA with one camera, not three: a frame is decoded several times."""
    with h5py.File(families.write_aloha(path, **options), "r+") as file:
        for name in families.CAMERAS[1:]:
            del file[f"observations/images/{name}"]
    return path


def pixels_of(blob: bytes) -> Array:
    return np.asarray(Image.open(io.BytesIO(blob)))


def blobs_of(dataset: Any) -> list[bytes]:
    return [row if isinstance(row, bytes) else row.tobytes() for row in dataset[:]]


@pytest.mark.parametrize(
    "how", ["padded", "vlen", pytest.param("bytes", marks=pytest.mark.slow(reason="as RoboTwin's files, which others convert"))]
)
def test_jpeg_frames_become_the_pixels_of_their_decoder(how: families.Frames, tmp_path: Path) -> None:
    sources = [one_camera(tmp_path / f"t/episode_{i}.hdf5", n=5, frames=how, seed=i) for i in range(2)]
    report = convert(sources, tmp_path / "a.zarr", workers=0)
    store = robozarr.open_store(tmp_path / "a.zarr")
    key = store.keys["cam_high"]
    assert (key.dtype, key.shape, key.role) == ("uint8", (24, 32, 3), "image")
    assert read_metadata(place_of(tmp_path / "a.zarr")).key("cam_high").decoded == decoder_of("JPEG")
    expected = []
    for source in sources:
        with h5py.File(source) as file:
            expected += [pixels_of(blob) for blob in blobs_of(file["observations/images/cam_high"])]
    np.testing.assert_array_equal(store.array("cam_high")[:], np.stack(expected))
    assert verify(tmp_path / "a.zarr", sources=sources, workers=0).violations == ()
    assert not {entry["path"] for entry in report.not_stored} - {"compress_len"}


MODES: dict[str, Array] = {
    "grey": np.arange(16 * 12, dtype=np.uint8).reshape(16, 12),
    "rgb": np.arange(16 * 12 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 12, 3),
    "rgba": np.arange(16 * 12 * 4, dtype=np.uint16).astype(np.uint8).reshape(16, 12, 4),
    "depth": (np.arange(16 * 12) * 341).astype(np.uint16).reshape(16, 12),
}


@pytest.mark.parametrize(
    "mode",
    ["rgb", "depth", *(pytest.param(mode, marks=pytest.mark.slow(reason="other channels")) for mode in ("grey", "rgba"))],
)
def test_png_frames_are_lossless(mode: str, tmp_path: Path) -> None:
    frames = np.stack([np.roll(MODES[mode], t, axis=0) for t in range(6)])
    source = write_libero(tmp_path / "a_demo.hdf5", lengths=(6,), size=8, drop_keys=few_keys.OF_LIBERO)
    with h5py.File(source, "r+") as file:
        del file["data/demo_0/obs/agentview_rgb"]
        blobs = [families.encode(frame, "PNG") for frame in frames]
        families.store_frames(file["data/demo_0/obs"], "agentview_depth" if mode == "depth" else "agentview_rgb", blobs, "vlen")
    convert(source, tmp_path / "a.zarr", workers=0)
    store = robozarr.open_store(tmp_path / "a.zarr")
    name = "agentview_depth" if mode == "depth" else "agentview_rgb"
    got = np.asarray(store.array(name)[:])
    assert got.dtype == frames.dtype
    np.testing.assert_array_equal(got, frames)
    assert (store.keys[name].role, store.metadata.key(name).decoded) == (
        "depth" if mode == "depth" else "image",
        "PNG, lossless",
    )


def test_demos_with_and_without_encoding_go_together(tmp_path: Path) -> None:
    sources = [one_camera(tmp_path / f"t/episode_{i}.hdf5", n=5, frames="padded" if i else "raw") for i in range(2)]
    convert(sources, tmp_path / "a.zarr", workers=0)
    assert verify(tmp_path / "a.zarr", sources=sources, workers=0).violations == ()
    with h5py.File(sources[0]) as file:
        np.testing.assert_array_equal(
            robozarr.open_store(tmp_path / "a.zarr").array("cam_high")[:5], file["observations/images/cam_high"][:]
        )


def break_frame(source: Path, change: Any) -> Path:
    with h5py.File(source, "r+") as file:
        dataset = file["observations/images/cam_high"]
        dataset[3] = change(dataset[3])
    return source


LIKE_NO_FRAME = pytest.mark.slow(reason="other tests refuse pictures that are none, and frames that are empty")
OTHER_SIZE = np.frombuffer(families.encode(np.zeros((16, 16, 3), np.uint8)), np.uint8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row[: len(row) // 2], "(?i)truncated"),
        pytest.param(lambda row: np.zeros(5, np.uint8), "no JPEG or PNG", marks=LIKE_NO_FRAME),
        pytest.param(lambda row: np.zeros(0, np.uint8), "begins with nothing", marks=LIKE_NO_FRAME),
        (lambda row: OTHER_SIZE, r"uint8 \(16, 16, 3\), but the demo's first is uint8 \(24, 32, 3\)"),
    ],
)
def test_a_frame_that_cannot_be_decoded_is_named(change: Any, said: str, tmp_path: Path) -> None:
    bad = break_frame(one_camera(tmp_path / "t/episode_0.hdf5", n=6, frames="vlen"), change)
    good = one_camera(tmp_path / "t/episode_1.hdf5", n=6, frames="vlen")
    with pytest.raises(SourceError, match=rf"{said}.* at step 3") as caught:
        convert([bad, good], tmp_path / "a.zarr", workers=0)
    (problem,) = caught.value.problems
    assert (problem.file, problem.demo, problem.key) == (str(bad), "episode_0", "observations/images/cam_high")
    report = convert([bad, good], tmp_path / "b.zarr", workers=0, on_error="skip")
    assert (report.n_episodes, report.left_out[0]["demo"]) == (1, "episode_0")


def test_a_recording_whose_last_frames_are_empty_is_found_before_a_pixel_is_read(tmp_path: Path) -> None:
    bad = one_camera(tmp_path / "t/episode_0.hdf5", n=6, frames="vlen")
    with h5py.File(bad, "r+") as file:
        file["observations/images/cam_high"][5] = np.zeros(0, np.uint8)
    with pytest.raises(SourceError, match=r"nothing was written.*\n.*cam_high: every frame .* begins with nothing at step 5"):
        convert(bad, tmp_path / "a.zarr", workers=0, dry_run=True)


def palette() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).convert("P").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (palette(), "colour type 3"),
        (families.encode(np.zeros((16, 16), bool), "PNG"), "1 bits"),
        (b"\xff\xd8\xff" + bytes(20), "cannot identify|broken|truncated|UnidentifiedImageError"),
        (b"\x00\x00\x00\x18ftypmp42", "no JPEG or PNG"),
    ],
)
def test_pictures_that_are_not_decoded_without_a_change_are_refused(blob: bytes, said: str) -> None:
    with pytest.raises(PictureError, match=said):
        picture_header(blob)


def test_a_picture_is_decoded_into_its_own_type_only() -> None:
    blob = families.encode(MODES["depth"], "PNG")
    with pytest.raises(PictureError, match="uint16"):
        decode(blob, np.zeros((16, 12), np.uint8))


def test_frames_of_an_unknown_kind_are_listed_with_the_reason(tmp_path: Path) -> None:
    source = one_camera(tmp_path / "t/episode_0.hdf5", n=4)
    with h5py.File(source, "r+") as file:
        families.store_frames(file["observations/images"], "cam_low", [palette()] * 4, "vlen")
    report = convert(source, tmp_path / "a.zarr", workers=0)
    (reason,) = (entry["reason"] for entry in report.not_stored if entry["path"].endswith("cam_low"))
    assert "colour type 3" in reason


def test_another_decoder_is_no_violation_as_long_as_the_pixels_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = one_camera(tmp_path / "t/episode_0.hdf5", n=4, frames="padded")
    more = one_camera(tmp_path / "t/episode_1.hdf5", n=5, frames="padded")
    convert(source, tmp_path / "a.zarr", workers=0)
    monkeypatch.setattr("robozarr.convert.sources.encoded_frames.decoder_of", lambda codec: f"{codec} by Another 1.0")
    assert verify(tmp_path / "a.zarr", sources=source, workers=0).violations == ()
    with pytest.raises(SourceError, match=r"Another 1\.0; in the store JPEG by Pillow"):
        convert(more, tmp_path / "a.zarr", append=True, workers=0)


def test_a_store_of_format_1_has_no_words_for_it(tmp_path: Path) -> None:
    convert(one_camera(tmp_path / "t/episode_0.hdf5", n=4, frames="padded"), tmp_path / "a.zarr", workers=0)
    metadata = read_metadata(place_of(tmp_path / "a.zarr"))
    document = {"robozarr": {**metadata.to_json(), "format_version": 1}}
    with pytest.raises(StoreError, match="unknown fields"):
        type(metadata).from_attributes(document, "x")
    assert replace(metadata).to_json() == metadata.to_json()
