"""What the API and the worker may both read and write: settings, states, tables, the trail.

Free of frameworks: no FastAPI, no torch, and of Celery only the doorbell.
"""

__version__ = "0.2.0"
