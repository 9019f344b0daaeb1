"""What is on disk and what an HDF5 source must hold; imports neither ``convert`` nor ``loader``."""
