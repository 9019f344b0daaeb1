"""Enumerate windows and choose their order: pure functions of tables, seed and epoch.

In: the episode table and the step index. Out: rows per key, masks, orders. Never imports numba or torch, and reads no file.
Read first: ``table.WindowTable``.
"""
