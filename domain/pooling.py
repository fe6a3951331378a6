"""Connections through a pooler, such as PgBouncer, that gives each transaction another server.

Lethe keeps nothing in a session: its locks, temporary tables and settings last as long as a
transaction, and it listens to nothing. What is left are prepared statements, which psycopg makes by
itself and which are a session's: through a pooler there are none.
"""

from typing import Any

from sqlalchemy import Engine, event


def adapt(engine: Engine) -> None:
    """Have each new connection of the engine looked at, and what does not survive a pooler switched
    off where there is one."""
    event.listen(engine, "connect", _look)


def _look(connection: Any, _: object) -> None:
    """A pooler invents the process id that it gives with a connection: it is not the server's."""
    cursor = connection.cursor()
    cursor.execute("SELECT pg_backend_pid()")
    (server,) = cursor.fetchone()
    cursor.close()
    connection.rollback()
    driver = getattr(connection, "driver_connection", connection)
    if server != driver.info.backend_pid:
        driver.prepare_threshold = None
