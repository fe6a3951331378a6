"""The jobs, one file per kind."""
