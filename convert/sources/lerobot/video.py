"""Decode frames of a video by their numbers. Imports PyAV.

What comes out is what an encoder left, as a decoder shows it: never exact. So the store names the decoder with its versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from robozarr.schemas.errors import PlanError

__all__ = ["VideoError", "VideoReader"]

TOLERANCE_S: Final = 1e-4
"""How far a frame may lie from its step's time (lerobot_dataset.py: tolerance_s)."""
OPENED: Final = {"protocol_whitelist": "file", "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"}
"""What a file may be: not a list of other files and addresses, which FFmpeg would follow."""
FORMATS: Final = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuvj444p", "rgb24", "gbrp")
"""Formats of 8 bits with colours."""


class VideoError(Exception):
    """A video that cannot be decoded, or lacks a frame."""


class VideoReader:
    """One open video; frames can be read in order, or from anywhere."""

    def __init__(self, path: Path, fps: float) -> None:
        try:
            import av
        except ModuleNotFoundError as exc:
            raise PlanError("reading videos needs PyAV → pip install '.[convert,lerobot]' in a clone of robozarr") from exc
        self.path, self._fps, self._av = path, fps, av
        try:
            self._container: Any = av.open(str(path), options=OPENED)
            self._stream: Any = self._container.streams.video[0]
        except (OSError, ValueError, IndexError, av.FFmpegError) as exc:
            raise VideoError(f"{path}: {exc}") from exc
        self._frames: Iterator[Any] = iter(())
        self._next = -1

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a frame; VideoError if it is not one of three colours of 8 bits."""
        context = self._stream.codec_context
        if context.pix_fmt not in FORMATS:
            raise VideoError(f"{self.path}: frames of {context.pix_fmt}, which are not read as three colours of 8 bits")
        return context.height, context.width, 3

    @property
    def decoder(self) -> str:
        """Name and versions of the decoder."""
        context = self._stream.codec_context
        library = ".".join(map(str, self._av.library_versions["libavcodec"]))
        name = context.codec.canonical_name.upper() if hasattr(context.codec, "canonical_name") else context.name.upper()
        return f"{name} by PyAV {self._av.__version__}, {context.codec.name}, libavcodec {library}: a video, not exact"

    def first_frame(self, time_s: float, n: int) -> int:
        """Number of the frame at a time, where n frames begin; VideoError if there is none, or the file ends before they do."""
        first = round(time_s * self._fps)
        if abs(first / self._fps - time_s) > TOLERANCE_S:
            raise VideoError(f"{self.path}: an episode that begins at {time_s:g} s, between frames of {self._fps:g} a second")
        if 0 < self._stream.frames < first + n:
            raise VideoError(
                f"{self.path}: {self._stream.frames} frames, but an episode needs those from {first} to {first + n}"
            )
        return first

    def read(self, first: int, out: NDArray[np.uint8]) -> None:
        """Decode frames first, first + 1, … of the file into `out` [n, y, x, 3].

        Raises
        ------
        VideoError
            If one is not there, or cannot be decoded.
        """
        try:
            if first != self._next:
                time_s = first / self._fps
                self._container.seek(max(0, int((time_s - TOLERANCE_S) / self._stream.time_base)), stream=self._stream)
                self._frames = self._container.decode(self._stream)
            for number, place in enumerate(out, first):
                place[...] = self._frame(number)
                self._next = number + 1
        except (OSError, ValueError, TypeError, self._av.FFmpegError) as exc:
            self._next = -1
            raise VideoError(f"{self.path}: {exc}") from exc

    def _frame(self, number: int) -> NDArray[np.uint8]:
        """The next frame, which must have the time of this number; after a jump, earlier frames are skipped."""
        wanted = number / self._fps
        for frame in self._frames:
            time_s = float(frame.pts * frame.time_base)
            if time_s < wanted - TOLERANCE_S:
                continue
            if time_s > wanted + TOLERANCE_S:
                raise VideoError(f"{self.path}: no frame at {wanted:.4f} s; the next is at {time_s:.4f} s")
            pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
            return pixels
        raise VideoError(f"{self.path}: no frame at {wanted:.4f} s, where it has ended")
