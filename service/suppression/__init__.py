"""Suppressions: lifting them, and who did so and why."""
