"""Keeping the audit trail: hashing, signing, anchoring, and issuing certificates."""
