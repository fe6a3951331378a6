"""Keeps the audit trail: hashes, signs and anchors it, and issues certificates."""
