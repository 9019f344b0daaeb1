"""Recognise datasets of encoded frames in an open HDF5 file, by their first frame. Decodes no picture."""

from __future__ import annotations

from dataclasses import replace

from robozarr.convert.records import DatasetInfo, Fault
from robozarr.convert.sources.hdf5 import SourceFile
from robozarr.convert.sources.pictures import PictureError, codec_of, decoder_of, picture_header
from robozarr.convert.sources.remedies import LEAVE_OUT
from robozarr.schemas.errors import SourceError

__all__ = ["with_pixels"]


def with_pixels(source: SourceFile, demo: str, info: DatasetInfo) -> DatasetInfo:
    """A dataset of encoded frames with the dtype and shape of its pixels; any other dataset unchanged."""
    rows = info.dtype is None and len(info.shape) == 1
    if not (rows or (info.dtype == "uint8" and len(info.shape) == 2 and info.shape[1] > 64)) or not info.shape[0]:
        return info
    try:
        first = source.encoded(demo, info.path, 0) if info.fault is None else b""
    except SourceError:  # of a type that h5py cannot read: it is listed as not stored
        return info
    if codec_of(first) is None:
        return info
    try:
        codec, dtype, shape = picture_header(first)
    except PictureError as exc:
        return replace(info, dtype=None, stored_as=f"frames that cannot be decoded exactly: {exc}")
    fault = _last_frame(source, demo, info, (dtype, shape))
    return replace(info, dtype=dtype, shape=(info.shape[0], *shape), decoded=decoder_of(codec), fault=fault)


def _last_frame(source: SourceFile, demo: str, info: DatasetInfo, first: tuple[str, tuple[int, ...]]) -> Fault | None:
    """The fault of the last frame: a recorder that died leaves it empty. Other frames are checked when they are read."""
    try:
        _, *last = picture_header(source.encoded(demo, info.path, info.shape[0] - 1))
        value = "" if tuple(last) == first else f"{last[0]} {last[1]} at the last step, {first[0]} {first[1]} at the first"
    except PictureError as exc:
        value = f"{exc} at step {info.shape[0] - 1}"
    rule = "every frame must decode to the size of the demo's first"
    return Fault(rule=rule, value=value, remedy=LEAVE_OUT) if value else None
