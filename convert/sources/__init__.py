"""Files → what they hold: demos, datasets, problems, alignment and flags. HDF5; LeRobot's Parquet and videos; ReplayBuffers.

In: paths. Out: one ``FileScan`` per file, and rows of pixels. Alone imports h5py, and in ``convert`` pyarrow, PyAV and zarr.
Read first: ``scan.scan_file``.
"""
