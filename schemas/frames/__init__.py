"""Decode chunks of frames with keyframes (codec ``robozarr.frames``) with numcodecs: bytes → rows. Slow, with every check.

In: the bytes of a chunk. Out: frames. Never imports another room, or what encodes (``store.frames``).
Read first: ``decode.FrameDecoder``.
"""
