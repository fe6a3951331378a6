"""Deletion requests: submitting, reading, cancelling, deciding, shredding."""
