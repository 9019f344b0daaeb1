"""Encode chunks of frames with keyframes, and let zarr-python open them; ``schemas.frames`` decodes.

In: pictures. Out: the bytes of a chunk. Never imports another room of ours but ``schemas``, numba or torch.
Read first: ``encode.encode_frames``.
"""
