"""Registering models, their versions, and what was made from their data."""
