"""The jobs, one file for each kind."""
