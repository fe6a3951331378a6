"""Datasets and data derived from them: Parquet files, reservoirs, statistics, reference tables."""
