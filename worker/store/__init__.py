"""Files in the store: artifacts named by their hash, and checkpoints of running jobs."""
