"""Files → what they hold: demos, datasets, problems, alignment and flags. HDF5; LeRobot's Parquet and videos; ReplayBuffers.

In: paths. Out: one ``FileScan`` per file, and rows of pixels. The only importer of h5py, and in ``convert`` of pyarrow, PyAV and zarr.
Read first: ``scan.scan_file``.
"""
