"""Files → what they hold: demos, datasets, problems, alignment and flags. HDF5; LeRobot's Parquet and videos; ReplayBuffers.

In: paths. Out: one ``FileScan`` per file, and rows of pixels. The only importer of h5py, pyarrow, PyAV and zarr in ``convert``.
Read first: ``scan.scan_file``.
"""
