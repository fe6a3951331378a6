"""Builds networks from registered architectures, and retrains them."""
