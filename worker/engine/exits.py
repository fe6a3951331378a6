"""Exit codes by which a job's process tells its parent why it stored no outcome."""

LEASE_LOST = 3
"""The job belongs to another worker, or has ended."""

STOPPED = 4
"""It stopped between two cycles, as ordered."""

DATABASE_AWAY = 5
"""Postgres was unreachable for too long."""

DATABASE_FAILED = 6
"""Postgres refused, through no fault of the job."""
