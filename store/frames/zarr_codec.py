"""The codec ``robozarr.frames`` for zarr-python, registered by an entry point so that ``zarr.open`` finds it.

A selection decodes the frames that it asks for and their keyframes, not the whole chunk. Checksums are inside the chunk: with a
codec of bytes behind this one, zarr would decode every frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, get_args

import numpy as np
from numpy.typing import NDArray
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer

from robozarr.schemas.frame_chunk import ABSENT
from robozarr.schemas.frames.decode import FrameDecoder
from robozarr.schemas.layout import Effort

__all__ = ["NAME", "FramesCodec"]

NAME = "robozarr.frames"


@dataclass(frozen=True)
class FramesCodec(ArrayBytesCodecPartialDecodeMixin, ArrayBytesCodec):
    """Frames with keyframes; the first axis of a chunk is its rows.

    Parameters
    ----------
    effort : "lean" or "compact"
        How frames are encoded; what is read does not depend on it.
    """

    effort: str = "lean"

    is_fixed_size = False

    def __post_init__(self) -> None:
        if self.effort not in ("lean", "compact"):
            raise ValueError(f"{NAME}: effort is lean or compact; got {self.effort!r}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read the codec's entry of a ``zarr.json``; ValueError for fields that FORMAT.md does not know."""
        configuration = dict(data.get("configuration") or {})
        if set(data) - {"name", "configuration"} or set(configuration) - {"effort"}:
            raise ValueError(f"{NAME}: a configuration of effort alone; got {data}")
        return cls(**configuration)

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry of a ``zarr.json``."""
        return {"name": NAME, "configuration": {"effort": self.effort}}

    def evolve_from_array_spec(self, array_spec: ArraySpec) -> Self:
        """The codec for arrays of this kind; chunks must have 1 to 254 rows."""
        if not 1 <= array_spec.shape[0] < ABSENT:
            raise ValueError(f"{NAME}: chunks of 1 to {ABSENT - 1} rows; got {array_spec.shape}")
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Unknown before encoding."""
        raise NotImplementedError

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return _to_buffer(self._decode(chunk_data, chunk_spec), chunk_spec)

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec) -> NDBuffer | None:
        # the whole chunk: only zarr 3.1.6 and later take ranges of what lies inside a shard
        data = await byte_getter.get(chunk_spec.prototype)
        if data is None:
            return None
        first, *rest = selection if isinstance(selection, tuple) else (selection,)
        rows = np.arange(chunk_spec.shape[0])[first]
        found = self._decode(data, chunk_spec, np.unique(rows))
        if np.ndim(first) > 0 and rest:  # an orthogonal or a coordinate selection: as numpy does it on the chunk
            return _to_buffer(found[(first, *rest)], chunk_spec)
        return _to_buffer(found[rows][(slice(None), *rest) if np.ndim(rows) else tuple(rest)], chunk_spec)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        from robozarr.store.frames.encode import encode_frames  # needs more than reading does

        assert self.effort in get_args(Effort)
        effort: Effort = self.effort  # type: ignore[assignment]
        frames = np.ascontiguousarray(chunk_data.as_numpy_array())
        encoded = encode_frames(frames, chunk_spec.shape[0], effort)
        return chunk_spec.prototype.buffer.from_bytes(encoded)

    @staticmethod
    def _decode(data: Buffer, spec: ArraySpec, wanted: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Decode the whole chunk [n_rows, …]; rows that are not `wanted` are zeros and not decoded."""
        dtype = spec.dtype.to_native_dtype()
        decoder = FrameDecoder(data.to_bytes(), spec.shape[0], spec.shape[1:], dtype)
        rows = [row for row in (range(spec.shape[0]) if wanted is None else wanted.tolist()) if row < decoder.n_present]
        out = np.zeros(spec.shape, dtype)
        out[rows] = decoder.rows(rows)
        return out


def _to_buffer(values: Any, spec: ArraySpec) -> NDBuffer:
    contiguous: Any = np.ascontiguousarray(values)
    return spec.prototype.nd_buffer.from_ndarray_like(contiguous)
