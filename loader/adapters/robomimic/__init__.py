"""robomimic: samples of its ``SequenceDataset``, and what its training reads from the file beside them.

In: a ``Store``. Out: samples, and metadata of environment and shapes, in robomimic's form. Imports robomimic only where a
function hands over to it, so that samples need none.
Read first: ``dataset.SequenceDataset``.
"""

from robozarr.loader.adapters.robomimic.dataset import ProcessedSequenceDataset, SequenceDataset
from robozarr.loader.adapters.robomimic.metadata import (
    get_demos_for_filter_key,
    get_env_metadata_from_dataset,
    get_shape_metadata_from_dataset,
)

__all__ = [
    "ProcessedSequenceDataset",
    "SequenceDataset",
    "get_demos_for_filter_key",
    "get_env_metadata_from_dataset",
    "get_shape_metadata_from_dataset",
]
