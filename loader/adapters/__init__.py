"""Batches → what training repositories expect: RDT, robomimic, OpenVLA, openpi, LeRobot, diffusion policy.

In: a ``Store``. Out: samples under the repository's own names, or its files. Never imported by the rest of ``loader``.
Read first: ``openpi.OpenPIDataset``, the shortest; docs/recipes has a page for each repository.
"""
