"""LeRobot data sets (version 2.1 and 3.0) as sources: Parquet with pictures inside, or videos beside it.

In: the path of a Parquet file below ``data/``. Out: a ``FileScan``, rows of a feature. Imports pyarrow and PyAV, no h5py.
Read first: ``scan.scan_data_file``.
"""
