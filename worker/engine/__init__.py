"""Runs a job: claims it, holds its lease, starts its process, watches it, ends it."""
