"""The job that makes a model forget: its rounds, their audits, and the new version."""
