"""Registering datasets, and checking what may be trained on."""
