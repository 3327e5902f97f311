"""A run's folder: the lock, the swap of an old run for a new one, samples.npz and run.json."""
