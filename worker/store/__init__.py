"""Files in the store: weights and the like by their hash, checkpoints of running jobs."""
