"""Decoding chunks of frames with keyframes (codec ``robozarr.frames``) by numcodecs: bytes → rows. Slow and suspicious.

In: the bytes of a chunk. Out: frames. Never imports another room, or what encodes (``store.frames``).
Read first: ``decode.FrameDecoder``.
"""
