"""The suppression ledger outside the database, and the comparison with it after a restore."""
