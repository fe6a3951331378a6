"""Celery tasks, and the jobs they run in child processes."""
