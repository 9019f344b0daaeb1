"""Write cameras as videos, as LeRobot does, and measure what that loses. Imports PyAV.

huggingface/lerobot 0.4.4, lerobot/datasets/video_utils.py: encode_video_frames (AV1 by SVT, yuv420p, a keyframe every 2
frames, crf 30, preset 12), get_video_info; episodes lie one behind the other in a file, up to 200 MB.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from robozarr.loader.adapters.lerobot.files import VIDEO, VIDEO_MB, FileNumber
from robozarr.schemas.errors import StoreError

__all__ = ["VideoFiles"]

CODEC: Final = "libsvtav1"
OPTIONS: Final = {"g": "2", "crf": "30", "preset": "12"}


class VideoFiles:
    """The videos of one camera.

    Parameters
    ----------
    root : path
    name : str
        Of the feature.
    size : (y, x)
    fps : int or float
    """

    def __init__(self, root: Path, name: str, size: tuple[int, int], fps: float) -> None:
        if size[0] % 2 or size[1] % 2:
            raise StoreError(
                f"lerobot · {name}: pictures with an even number of lines and columns, which yuv420p needs; got {size[0]} × "
                f"{size[1]} → export without --video"
            )
        self._root, self.name, self._size, self._fps = root, name, size, Fraction(fps).limit_denominator()
        self._number = FileNumber()
        self._container: Any = None
        self._stream: Any = None
        self._first: list[int] = []
        self.paths: list[Path] = []
        self._n = self._total = self._bytes = 0

    @property
    def number(self) -> tuple[int, int]:
        """Number of the folder of the file that is being written, and of the file in it."""
        return self._number.chunk, self._number.file

    @property
    def seconds(self) -> float:
        """Length of the current file so far."""
        return float(self._n / self._fps)

    def begin_episode(self) -> None:
        """Begin another file if this one is large enough; no episode is split over two files."""
        if self._container is not None and self._bytes >= VIDEO_MB * 2**20:
            self.close()
            self._number.next()
        if self._container is None:
            path = self._number.path(self._root, VIDEO, video_key=self.name)
            self._container = av.open(str(path), "w")
            self._stream = self._container.add_stream(CODEC, rate=self._fps, options=dict(OPTIONS))
            self._stream.pix_fmt, self._stream.height, self._stream.width = "yuv420p", *self._size
            self.paths.append(path)
            self._first.append(self._total)
            self._n = self._bytes = 0

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Add frames [n, y, x, 3]."""
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            self._put(self._stream.encode(picture))
        self._n += len(frames)
        self._total += len(frames)

    def close(self) -> None:
        """Finish the file."""
        if self._container is not None:
            self._put(self._stream.encode())
            self.give_up()

    def give_up(self) -> None:
        """Close the file as it is."""
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _put(self, packets: list[Any]) -> None:
        self._bytes += sum(packet.size for packet in packets)
        self._container.mux(packets)

    def info(self) -> dict[str, Any]:
        """``info`` of the feature in ``info.json``."""
        return {
            "video.height": self._size[0], "video.width": self._size[1], "video.codec": "av1", "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False, "video.fps": float(self._fps), "video.channels": 3, "has_audio": False,
        }  # fmt: skip

    def psnr(self, frames: Iterator[NDArray[np.uint8]]) -> float:
        """Peak signal-to-noise ratio in dB of all frames, which are decoded again: 10 · log10(255² / mean squared error).

        Parameters
        ----------
        frames : iterator of uint8 [y, x, 3]
            What was written, in order.

        Raises
        ------
        StoreError
            If a video does not hold as many frames as were written.
        """
        total, n = 0, 0
        for path, first, last in zip(self.paths, self._first, [*self._first[1:], self._total], strict=True):
            with av.open(str(path)) as container:
                decoded = container.decode(video=0)
                n_found = 0
                for original, found in zip(islice(frames, last - first), decoded, strict=False):
                    error = original.astype(np.int32) - found.to_ndarray(format="rgb24")
                    total, n, n_found = total + int((error * error).sum()), n + error.size, n_found + 1
                n_found += sum(1 for _ in decoded)
            if n_found != last - first:
                raise StoreError(f"{path}: {last - first} frames went in and {n_found} come back → export without --video")
        return math.inf if total == 0 else 10 * math.log10(255**2 * n / total)
