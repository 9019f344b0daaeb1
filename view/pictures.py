"""Pictures for people: upright frames as RGB, as PNG or WebP, as HTML. Knows no charts.

Stores keep frames as their source did, which for LIBERO is upside down. Whatever is shown here is turned upright where the
store says how, and the caption says what was done.
"""

from __future__ import annotations

import base64
import html
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robozarr.schemas.errors import StoreError
from robozarr.schemas.index import ImageConvention
from robozarr.store.opened import Store

__all__ = ["Video", "animate", "cameras", "image_tag", "orientation", "to_rgb"]

U8 = NDArray[np.uint8]

_WORDS: Final = {
    ImageConvention.OPENGL: "turned upright for viewing (the store keeps them upside down, as recorded: OpenGL)",
    ImageConvention.OPENCV: "upright, as stored",
    ImageConvention.UNKNOWN: "as stored: which way up they are is not known",
}


SEEN: Final = ((), (1,), (3,), (4,))
"""Numbers of channels that a person can look at."""


def cameras(store: Store) -> list[str]:
    """Keys whose steps are pictures a person can look at: colour or grey first, then depth."""
    frames = [key for key in store.metadata.keys if key.picture_axes in ("yx", "yxc", "cyx") and key.channel_shape in SEEN]
    return [key.name for key in sorted(frames, key=lambda key: key.role != "image")]


def orientation(convention: int) -> str:
    """What was done to pictures of a convention, as words that follow "pictures are"."""
    return _WORDS[ImageConvention(convention)]


def to_rgb(store: Store, name: str, frames: NDArray[Any], convention: int) -> U8:
    """Frames of a key [n, y, x, …] or [n, c, y, x] as uint8 [n, y, x, 3], upright.

    Anything but uint8 (depth) becomes grey, black at the store's smallest value and white at its largest.
    """
    if store.keys[name].picture_axes == "cyx":
        frames = np.moveaxis(frames, 1, -1)
    frames = frames[..., None] if frames.ndim == 3 else frames
    if frames.dtype != np.uint8:
        stats = store.stats(name)
        low, high = float(np.min(stats["min"])), float(np.max(stats["max"]))
        scaled = (frames.astype(np.float32) - low) / (high - low if high > low else 1.0)
        frames = (np.nan_to_num(scaled).clip(0, 1) * 255).astype(np.uint8)
    frames = frames[..., :3] if frames.shape[-1] >= 3 else np.repeat(frames[..., :1], 3, axis=-1)
    return frames[:, ::-1] if convention == ImageConvention.OPENGL else frames


def encode(frame: U8, *, lossless: bool = True) -> tuple[bytes, str]:
    """Encode a frame [y, x, 3] as PNG, or smaller and lossy as WebP; returns the media type too."""
    buffer = BytesIO()
    if lossless:
        Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "PNG")
        return buffer.getvalue(), "image/png"
    Image.fromarray(np.ascontiguousarray(frame)).save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue(), "image/webp"


def image_tag(frame: U8, alt: str, *, width: int | None = None, lossless: bool = True) -> str:
    """A frame as an ``<img>`` with its data inside; `alt` is its description and is escaped here."""
    data, media = encode(frame, lossless=lossless)
    style = "max-width:100%;height:auto" + (f";width:{width}px" if width else "")
    return (
        f'<img src="data:{media};base64,{base64.b64encode(data).decode()}" width="{frame.shape[1]}" height="{frame.shape[0]}" '
        f'style="{style}" alt="{html.escape(alt)}">'
    )


class Video:
    """A moving picture that plays in a notebook; ``save`` writes the file."""

    def __init__(self, data: bytes, kind: Literal["webp", "gif"], caption: str, size: tuple[int, int]) -> None:
        self.data, self.kind, self.caption, self.size = data, kind, caption, size

    def __repr__(self) -> str:
        return f"Video({self.kind}, {len(self.data) / 1e6:.2f} MB: {self.caption})"

    def save(self, path: str | Path) -> None:
        """Write the file, an animated WebP or GIF as it was made; the name must have that ending.

        Raises
        ------
        StoreError
            If the name ends otherwise: a player would take the file for what it is not.
        """
        if Path(path).suffix.lower() != f".{self.kind}":
            raise StoreError(
                f"video: this one is {self.kind.upper()}, to be saved as *.{self.kind}; got {path} → name it "
                f'{Path(path).with_suffix(f".{self.kind}").name}; for mp4 convert it: ffmpeg -i a.gif a.mp4, of video("gif")'
            )
        Path(path).write_bytes(self.data)

    def _repr_html_(self) -> str:
        width = max(self.size[0], min(640, 2 * self.size[0]))
        return (
            f'<figure style="margin:.5em 0"><img src="data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}" '
            f'style="width:{width}px;max-width:100%;height:auto" alt="{html.escape(self.caption)}">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )


def animate(frames: U8, hz: float, kind: Literal["webp", "gif"], caption: str) -> Video:
    """Animate frames uint8 [n, y, x, 3] at `hz` per second, as an endless loop; Pillow encodes, no system codec needed."""
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    duration = max(20, round(1000 / hz))  # browsers play anything faster than 50 Hz slowly
    buffer = BytesIO()
    options: dict[str, Any] = {"quality": 80, "method": 1} if kind == "webp" else {"optimize": False}
    pictures[0].save(buffer, kind.upper(), save_all=True, append_images=pictures[1:], duration=duration, loop=0, **options)
    return Video(buffer.getvalue(), kind, caption, pictures[0].size)
