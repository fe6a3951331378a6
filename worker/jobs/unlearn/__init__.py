"""The job that makes a model forget: rounds, audits, and the new version."""
