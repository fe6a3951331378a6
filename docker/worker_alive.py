"""Exits 0 when this container's Celery worker answers a ping, so it runs and hears its broker.

It asks through the broker, the way jobs arrive. A job in progress does not delay the answer,
because jobs run on a thread of their own.
"""

import socket
import sys

from domain import doorbell, environment
from domain.settings import Settings

host = socket.gethostname()
app = doorbell.queue(environment.read(Settings).broker_url)
answers = app.control.ping([f"worker@{host}", f"beat@{host}"], timeout=5, limit=1)
sys.exit(0 if answers else "no answer")
