"""Decode frames that are stored as JPEG or PNG. Imports Pillow; knows no HDF5.

A PNG decodes to the same pixels everywhere. A JPEG decodes to the pixels of its decoder, so the store names it
(``decoder_of``). Whatever Pillow would change on the way (palettes, 16-bit colours, 2-bit greys) is refused, never converted.
"""

from __future__ import annotations

import functools
import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PictureError", "codec_of", "decode", "decoder_of", "picture_header", "row_bytes"]

MAGIC: Final = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
LARGEST: Final = 64 * 2**20
"""Most pixels of a frame; a header that claims more is damaged, or made to exhaust memory."""
_JPEG: Final = {"L": ("uint8", 1), "RGB": ("uint8", 3)}
_PNG: Final[dict[tuple[int, int], tuple[str, int]]] = {
    (8, 0): ("uint8", 1),
    (8, 2): ("uint8", 3),
    (8, 4): ("uint8", 2),
    (8, 6): ("uint8", 4),
    (16, 0): ("uint16", 1),
}
"""Bit depth and colour type that Pillow decodes exactly → dtype, channels."""


class PictureError(Exception):
    """The bytes are not a picture that can be decoded exactly."""


def codec_of(data: bytes) -> str | None:
    """JPEG or PNG, told by the first bytes; None for anything else.

    >>> codec_of(bytes([0xFF, 0xD8, 0xFF, 0xE0])), codec_of(b"pixels")
    ('JPEG', None)
    """
    return next((name for magic, name in MAGIC.items() if data.startswith(magic)), None)


@functools.cache
def decoder_of(codec: str) -> str:
    """The decoder of a codec here with its versions, such as "JPEG by Pillow 12.0.0, libjpeg-turbo 3.1.0"."""
    import PIL
    from PIL import features

    if codec == "PNG":  # any decoder gives the same pixels
        return "PNG, lossless"
    turbo = features.version("libjpeg_turbo")
    library = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"
    return f"JPEG by Pillow {PIL.__version__}, {library}"


def row_bytes(row: Any) -> bytes:
    """A row of a dataset of encoded frames as bytes: bytes, or an array of them, possibly zero-padded; b"" for anything else.

    >>> row_bytes(np.array([74, 80], np.uint8)), row_bytes(np.zeros((2, 2)))
    (b'JP', b'')
    """
    if isinstance(row, bytes):
        return row
    is_bytes = isinstance(row, np.void) or (isinstance(row, np.ndarray) and row.dtype == np.uint8 and row.ndim == 1)
    return row.tobytes() if is_bytes else b""


def picture_header(data: bytes) -> tuple[str, str, tuple[int, ...]]:
    """Codec, dtype and shape [y, x] or [y, x, c] of an encoded picture, without decoding it.

    Raises
    ------
    PictureError
        If they hold none, or one whose pixels Pillow would not give back as they are.
    """
    codec = codec_of(data)
    if codec is None:
        raise PictureError(f"no JPEG or PNG: it begins with {data[:4].hex(' ') or 'nothing'}")
    image = _open(data)
    width, height = image.size
    if not 0 < width * height <= LARGEST:
        raise PictureError(f"a {codec} of {width} × {height} pixels")
    if codec == "PNG":
        bits, colour = data[24], data[25]
        if (bits, colour) not in _PNG:
            raise PictureError(f"a PNG of {bits} bits and colour type {colour}, which is not decoded without a change")
        dtype, channels = _PNG[bits, colour]
    else:
        if image.mode not in _JPEG:
            raise PictureError(f"a JPEG of mode {image.mode}, which is neither grey nor colour")
        dtype, channels = _JPEG[image.mode]
    return codec, dtype, (height, width) if channels == 1 else (height, width, channels)


def decode(data: bytes, out: NDArray[Any]) -> None:
    """Decode one picture into `out` [y, x, …].

    Raises
    ------
    PictureError
        If it cannot be decoded whole, or is not of the shape and type of `out`.
    """
    _, dtype, shape = picture_header(data)
    if (dtype, shape) != (out.dtype.name, out.shape):
        raise PictureError(f"a picture of {dtype} {shape}, but the demo's first is {out.dtype.name} {out.shape}")
    image = _open(data)
    try:
        image.load()
        out[...] = np.asarray(image).reshape(shape)
    except Exception as exc:  # Pillow's decoders raise what they like
        raise PictureError(f"{type(exc).__name__}: {exc}") from exc


def _open(data: bytes) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except Exception as exc:
        raise PictureError(f"{type(exc).__name__}: {exc}") from exc
