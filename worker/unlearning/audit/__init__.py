"""The audit of a job's outcome: its tests, and the verdict."""
