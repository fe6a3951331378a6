"""Exit codes by which a job's process tells its parent why it stored no outcome."""

LEASE_LOST = 3
"""The job is somebody else's, or has ended."""

STOPPED = 4
"""It stopped between two cycles, as it was told."""

DATABASE_AWAY = 5
"""Postgres could not be reached for too long."""

DATABASE_FAILED = 6
"""Postgres refused what is no fault of the job's."""
