"""Datasets and what is kept of them: Parquet files, reservoirs, statistics, reference tables."""
