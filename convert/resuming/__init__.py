"""Make a conversion safe to interrupt: lock, journal, finished partitions, fence, states.

In: a plan and a place. Out: what is finished, what is left. Never imports h5py or Dask.
Read first: ``journal.Journal``.
"""
