"""Check a finished store: violations of FORMAT.md, and differences from its sources.

In: a place. Out: a ``VerifyReport``. Never imports Dask.
Read first: ``verification.verify``.
"""
