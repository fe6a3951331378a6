"""Lethe's API, and the files it shares with the worker."""

__version__ = "0.1.0"
