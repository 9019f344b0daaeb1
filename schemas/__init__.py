"""Data and rules about what is on disk and what a window is: pure, no I/O.

In: nothing of ours. Out: layouts, metadata, checksums, window specifications, errors. Never imports another room, zarr or h5py.
Read first: ``metadata.StoreMetadata``.
"""
