"""Run the tasks of a conversion: in this process, on Dask workers, or in a child process that may die; and show progress.

In: functions and their arguments, never pixels. Out: results in order. The only importer of Dask; never imports h5py.
Read first: ``executor.Executor``.
"""
