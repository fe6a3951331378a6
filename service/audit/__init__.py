"""Reading the audit trail, and its proofs."""
