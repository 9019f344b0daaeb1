"""Diffusion policy: a store in the place of its image data sets, and its ReplayBuffer made of a store.

In: a ``Store``. Out: items under diffusion policy's names; a Zarr v2 file. Imports diffusion policy only where it is installed.
Read first: ``dataset.DiffusionPolicyDataset``.
"""

from robozarr.loader.adapters.diffusion_policy.dataset import DiffusionPolicyDataset

__all__ = ["DiffusionPolicyDataset"]
