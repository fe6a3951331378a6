"""Running a job: claim it, hold its lease, start its process, watch it, end it."""
