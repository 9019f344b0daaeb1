"""Store → batches; never imports ``convert``, h5py or Dask."""
