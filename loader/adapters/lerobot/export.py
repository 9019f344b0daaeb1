"""Write a store as a data set of LeRobot, version 3.0, which its ``LeRobotDataset`` opens.

Every number keeps its type and bits. Pictures are PNG, exact; as videos they are not, and how much is lost is measured. What a
reader needs to make the same store again stands in ``info.json`` under ``robozarr``, which LeRobot passes over.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.loader.adapters.exporting import Progress, appearing, check_free, of_one_width, size_of
from robozarr.loader.adapters.instructions import Wording
from robozarr.loader.adapters.lerobot.dataset import LeRobotStore
from robozarr.loader.adapters.lerobot.features import Feature, Features, features_of
from robozarr.loader.adapters.lerobot.statistics import counts_of, of_counts, of_values
from robozarr.loader.adapters.turning import Turn
from robozarr.loader.arguments import store_of
from robozarr.loader.dataset import WindowDataset
from robozarr.schemas.errors import WindowError
from robozarr.schemas.index import Alignment, ImageConvention
from robozarr.store.opened import Store
from robozarr.version import __version__

if TYPE_CHECKING:  # pyarrow and PyAV are the extra lerobot's
    from robozarr.loader.adapters.lerobot.video import VideoFiles

__all__ = ["LeRobotExport", "export_lerobot"]

BLOCK: Final = 64
"""Steps whose pictures are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeRobotExport:
    """The result of an export."""

    output: str
    n_episodes: int
    n_steps: int
    features: tuple[str, ...]
    n_bytes: int
    """Size of all files."""
    left_out: dict[str, str]
    """Keys that LeRobot's form cannot hold → why."""
    psnr: dict[str, float]
    """Camera → dB, of videos; infinite where nothing is lost. Empty for pictures, which are exact."""

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def export_lerobot(
    store: Store | str | Path,
    output: str | Path,
    *,
    images: Sequence[str] | None = None,
    state: Sequence[str] | None = None,
    keys: Sequence[str] | None = None,
    turn: Turn = "none",
    wording: Wording = "file",
    fps: float | None = None,
    causal: bool = False,
    assume_alignment: Alignment | None = None,
    video: bool = False,
    progress: Progress | None = None,
) -> LeRobotExport:
    """Write a LeRobot data set into a folder, which appears when it is whole.

    Parameters
    ----------
    store : Store or path
    output : path
        A folder that is not there yet.
    images, state, turn, wording, fps, causal, assume_alignment
        As of ``LeRobotStore``.
    keys : keys, optional
        Other keys to write. Default: all that LeRobot's form can hold.
    video : bool
        Write cameras as videos (AV1), which are many times smaller and not exact.
    progress : Progress, optional

    Returns
    -------
    LeRobotExport

    Raises
    ------
    StoreError
        If something is at `output` already, or a video cannot be written.
    WindowError
        If a key is not there, or cannot be what it is asked for.
    """
    folder = Path(output).absolute()
    check_free(folder)
    opened = store_of(store)
    features = features_of(opened, images=images, state=state, keys=keys)
    dataset = LeRobotStore(
        opened,
        keys=[feature.keys[0] for feature in features.numbers if len(feature.keys) == 1],
        images=images, state=state, turn=turn, wording=wording, fps=fps, causal=causal, assume_alignment=assume_alignment,
    )  # fmt: skip
    if not dataset.pairing.length.all():
        episode = int(dataset.pairing.length.argmin())
        raise WindowError(
            f"lerobot · causal: an action after an observation in every episode; episode {episode} has a single step → export "
            "as recorded, without causal"
        )
    with appearing(folder) as stage:
        stage.mkdir(parents=True)
        psnr = _Writer(dataset, features, stage, video, progress).write()
    return LeRobotExport(
        output=str(folder),
        n_episodes=opened.n_episodes,
        n_steps=len(dataset),
        features=tuple(feature.name for feature in features),
        n_bytes=size_of(folder),
        left_out={name: why for name, why in features.left_out.items() if name not in _of_one_width(opened, features)},
        psnr=psnr,
    )


class _Writer:
    """One export, into a folder of its own."""

    def __init__(self, dataset: LeRobotStore, features: Features, root: Path, video: bool, progress: Progress | None) -> None:
        from robozarr.loader.adapters.lerobot.files import DataFiles

        self.dataset, self.store, self.root, self.progress = dataset, dataset.store, root, progress
        self.pictures = features.pictures
        self.numbers: dict[str, NDArray[Any]] = {feature.name: dataset.column(feature) for feature in features.numbers}
        self.info, self.made_of = features.to_info(video), {feature.name: _made_of(feature, self.store) for feature in features}
        for name, values in _of_one_width(self.store, features).items():
            self.info[name] = {"dtype": values.dtype.name, "shape": (values.shape[1],), "names": None}
            self.numbers[name], self.made_of[name] = (
                values[dataset.pairing.rows(name)], {"key": name, "shape": [values.shape[1]]},
            )  # fmt: skip
        self.numbers |= dataset.counters
        self.videos = _videos(root, features, dataset.fps) if video else {}
        self.files = DataFiles(root, self.info)
        self.counts = {feature.name: np.zeros((3, 256), np.int64) for feature in self.pictures}

    def write(self) -> dict[str, float]:
        """Write everything; returns the PSNR of each video."""
        from robozarr.loader.adapters.lerobot.files import write_episodes, write_json, write_tasks

        self._start("write episodes", self.store.n_episodes)
        with self.files, ThreadPoolExecutor() as pool:
            try:
                rows = [self._episode(episode, pool) for episode in range(self.store.n_episodes)]
                for video in self.videos.values():
                    video.close()
            finally:
                for video in self.videos.values():
                    video.give_up()
        stats = {name: of_values(values.reshape(len(values), -1)) for name, values in self.numbers.items()}
        stats |= {name: of_counts(counts, len(self.dataset)) for name, counts in self.counts.items()}
        write_json(self.root, "stats.json", stats)
        write_episodes(self.root, rows)
        write_tasks(self.root, self.dataset.meta.tasks)
        write_json(self.root, "info.json", self._info())
        self._start("compare videos", len(self.videos))
        return {feature.name: self._psnr(feature) for feature in self.pictures if self.videos}

    def _start(self, stage: str, total: int) -> None:
        if self.progress is not None and total:
            self.progress.start(stage, total)

    def _advance(self) -> None:
        if self.progress is not None:
            self.progress.advance()

    def _episode(self, episode: int, pool: ThreadPoolExecutor) -> dict[str, Any]:
        """Write one episode; returns its row of the table of episodes."""
        row: dict[str, Any] = self.dataset.meta.episodes[episode]
        start, stop = row["dataset_from_index"], row["dataset_to_index"]
        numbers = {name: values[start:stop] for name, values in self.numbers.items()}
        stats = {name: of_values(values.reshape(len(values), -1)) for name, values in numbers.items()}
        encoded: dict[str, list[bytes]] = {}
        for feature in self.pictures:
            video, counts = self.videos.get(feature.name), np.zeros((3, 256), np.int64)
            if video is not None:
                video.begin_episode()
                row |= _placed(f"videos/{feature.name}", video.number)
                row[f"videos/{feature.name}/from_timestamp"] = video.seconds
            for frames in _blocks(self.dataset, feature, start, stop):
                counts += sum(pool.map(counts_of, frames))
                if video is None:
                    encoded.setdefault(feature.name, []).extend(pool.map(_png, frames))
                else:
                    video.write(frames)
            if video is not None:
                row[f"videos/{feature.name}/to_timestamp"] = video.seconds
            self.counts[feature.name] += counts
            stats[feature.name] = of_counts(counts, stop - start)
        row |= _placed("data", self.files.write(numbers, encoded)) | self._facts(episode)
        row |= {f"stats/{name}/{kind}": value.tolist() for name, found in stats.items() for kind, value in found.items()}
        self._advance()
        return row

    def _facts(self, episode: int) -> dict[str, Any]:
        """Facts about an episode that a store knows and LeRobot has no field for."""
        episodes = self.store.episodes
        convention = ImageConvention(int(episodes.image_convention[episode]))
        alignment = Alignment(int(episodes.alignment[episode]))
        alignment = Alignment.BEFORE if self.dataset.windows.spec.causal else alignment
        turned = {"none": convention, "upright": ImageConvention.OPENCV, "rotate": ImageConvention.UNKNOWN}
        return {
            "robozarr/demo": episodes.demo[episode],
            "robozarr/success": int(episodes.success[episode]),
            "robozarr/alignment": alignment.name.lower(),
            "robozarr/pictures": turned[self.dataset.turn].name.lower(),
        }

    def _info(self) -> dict[str, Any]:
        from robozarr.loader.adapters.lerobot.files import CHUNK_FILES, DATA, DATA_MB, VIDEO, VIDEO_MB

        for name, video in self.videos.items():
            self.info[name]["info"] = video.info()
        rules = self.store.metadata.flag_rules
        return {
            **self.dataset.meta.info,
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "splits": {"train": f"0:{self.store.n_episodes}"},
            "data_path": DATA,
            "video_path": VIDEO if self.videos else None,
            "features": self.info,
            "robozarr": {
                "version": 1,
                "software": f"robozarr {__version__}",
                "identity": self.store.identity,
                "turn": self.dataset.turn,
                "features": self.made_of,
                "gripper": rules.gripper,
                "switches": list(rules.switches),
                "joint_key": self.store.metadata.joint_key,
            },
        }

    def _psnr(self, feature: Feature) -> float:
        blocks = _blocks(self.dataset, feature, 0, len(self.dataset))
        found = self.videos[feature.name].psnr(frame for frames in blocks for frame in frames)
        self._advance()
        return found


def _videos(root: Path, features: Features, fps: float) -> dict[str, VideoFiles]:
    from robozarr.loader.adapters.lerobot.video import VideoFiles

    return {
        feature.name: VideoFiles(root, feature.name, (feature.shape[0], feature.shape[1]), fps) for feature in features.pictures
    }


def _blocks(dataset: LeRobotStore, feature: Feature, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
    """Pictures of rows [start, stop) as they are served, some at a time: uint8 [n, y, x, 3]."""
    (key,) = feature.keys
    reader = WindowDataset(dataset.store, {key: [0]}, upright=[key] if key in dataset.windows.upright else False)
    rows = dataset.pairing.rows(key)[start:stop]
    for first in range(0, len(rows), BLOCK):
        batch = reader.read(rows[first : first + BLOCK])
        frames: NDArray[np.uint8] = dataset.pictures(batch["episode"].numpy(), key, batch[key])[:, 0].numpy()
        yield frames


def _png(frame: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(frame).save(data, "PNG", compress_level=1)
    return data.getvalue()


def _made_of(feature: Feature, store: Store) -> dict[str, Any]:
    """The key that a feature holds, with the shape of its steps; or the keys that it joins."""
    if len(feature.keys) > 1:
        return {"joined": list(feature.keys)}
    key = store.keys[feature.keys[0]]
    return {"key": key.name, "shape": list(feature.shape if feature.picture else key.shape)}


def _of_one_width(store: Store, features: Features) -> dict[str, NDArray[Any]]:
    """The ragged keys whose steps all have the same width: [n_steps, width]."""
    found = {name: of_one_width(store, name) for name in features.left_out if store.keys[name].ragged}
    return {name: values for name, values in found.items() if values is not None}


def _placed(name: str, place: tuple[int, int]) -> dict[str, int]:
    return {f"{name}/chunk_index": place[0], f"{name}/file_index": place[1]}
