"""The command line: `python -m lethe`. For operators, beside the running service."""
