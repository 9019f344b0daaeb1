"""Open a finished store: find its place, read and check its documents and tables.

In: a path or a URL. Out: a ``Place`` to read and write, a ``Store`` that is checked.
Never imports ``convert``, ``loader``, h5py, Dask or torch.
Read first: ``opened.open_store``.
"""
