"""Published sets, one file each: how its files are read, and its entry ``DATASET`` in the registry."""
