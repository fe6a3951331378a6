"""Attacks on evidence: each alters an honest bundle, and the verifier must refuse the result.

The attacker may be anyone between the operator and the auditor, or the operator, who holds the
signing keys. `python -m attacks` runs them all.
"""
