"""Samples as training repositories expect them: naming, shapes, units. No reading of their own; no Dask, no h5py."""
