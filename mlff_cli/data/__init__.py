"""Files and batches: grouped HDF5, structures, SAE, model files, batching, sampling, splits."""
