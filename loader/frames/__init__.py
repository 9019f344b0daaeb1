"""Read rows of a key into arrays: byte ranges, reading, checking, decoding, in compiled code.

In: row numbers. Out: filled memory. Never imports torch.
Read first: ``read.FrameReader``.
"""
