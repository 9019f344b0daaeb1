"""Augmentation of pictures on the device, a whole batch at once: what is drawn for each window, and what is done with it.

In: float pictures [n, c, y, x] and numbers for each. Out: pictures. Never random by itself: a window of an epoch looks the same
whenever it is served. Read first: ``steps.RandomCrop``.
"""
