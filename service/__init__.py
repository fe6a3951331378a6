"""Lethe's API: HTTP, and nothing else."""
