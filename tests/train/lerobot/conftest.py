"""LeRobot's own code, in an environment of its own (``make test-train``). What is put in the place of something is said here.

- torchvision's compiled operators, where its build does not go with the environment's torch: two are declared, none is called.
- ``torchvision.io.VideoReader``, which torchvision no longer has, and LeRobot's decoder by PyAV asks for.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import av
import pytest
import torch

from robozarr.convert import convert
from robozarr.loader.adapters.lerobot.export import export_lerobot

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "SVT_LOG": "1"}


def _declare_operators() -> list[Any]:
    """Declare what torchvision looks up while it is imported, unless its own library can be loaded."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    try:
        cast(Any, torch.ops).load_library(str(next(Path(spec.origin).parent.glob("_C*.so"))))
    except (OSError, StopIteration):
        library: Any = cast(Any, torch.library).Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return [library]
    return []


KEPT = _declare_operators()


class VideoReader:
    """What LeRobot 0.4.4 (video_utils.py: decode_video_frames_torchvision) uses of torchvision's class, by PyAV."""

    def __init__(self, path: str, stream: str) -> None:
        self.container: Any = av.open(path)
        self._stream: Any = self.container.streams.video[0]

    def seek(self, time_s: float, keyframes_only: bool = False) -> None:
        self.container.seek(int(time_s / self._stream.time_base), stream=self._stream, any_frame=not keyframes_only)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for frame in self.container.decode(self._stream):
            data = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            yield {"data": data, "pts": float(frame.pts * self._stream.time_base)}


@pytest.fixture(autouse=True, scope="session")
def _video_reader() -> Iterator[None]:
    import torchvision  # type: ignore[import-not-found,unused-ignore]

    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(torchvision.io, "VideoReader"):
            patch.setattr(torchvision.io, "VideoReader", VideoReader, raising=False)
            patch.setattr(torchvision, "set_video_backend", lambda backend: None, raising=False)
        yield


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's sample as a store."""
    path = tmp_path_factory.mktemp("lerobot") / "sample.zarr"
    convert(Path(__file__).parents[3] / "sample", path, workers=0)
    return path


@pytest.fixture(scope="session")
def images(store: Path) -> Path:
    """The store as a data set of LeRobot, with pictures."""
    export_lerobot(store, store.with_name("images"))
    return store.with_name("images")


@pytest.fixture(scope="session")
def causal_images(store: Path) -> Path:
    """The same with each observation beside the action that followed it."""
    export_lerobot(store, store.with_name("causal_images"), causal=True)
    return store.with_name("causal_images")


@pytest.fixture(scope="session")
def videos(store: Path) -> Path:
    """The same with videos."""
    export_lerobot(store, store.with_name("videos"), video=True)
    return store.with_name("videos")
