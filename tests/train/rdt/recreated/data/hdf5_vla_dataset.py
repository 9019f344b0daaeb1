"""Stands for data/hdf5_vla_dataset.py, which the recipe's lines replace; the pre-training form imports and does not use it."""


class HDF5VLADataset:
    """RDT's own, of ALOHA's files."""
