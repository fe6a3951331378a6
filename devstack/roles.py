"""The roles of the embedded database, as `migrations/roles.sql` makes them for any other."""

from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

MADE_BY = Path(__file__).resolve().parents[1] / "migrations" / "roles.sql"

SUPERUSER = "postgres"
"""Whom the embedded server has from the beginning."""

OWNER = "lethe_owner"
"""Who owns the tables, and runs the migrations."""

ROLES = {"api": "lethe_api", "worker": "lethe_worker", "beat": "lethe_worker"}
"""The role under which each process of the service runs."""

EITHER = "lethe_app"
"""The role of a process of before there were two; a member of both."""


def make_roles(superuser_url: str) -> None:
    """Make the roles, let them log in, and give the database to its owner."""
    plain = make_url(superuser_url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(hide_password=False)) as connection:
        connection.execute(MADE_BY.read_bytes())
        for role in sorted({OWNER, EITHER, *ROLES.values()}):
            connection.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(role)))


def as_role(url: str, role: str) -> str:
    """The same database for this role. The embedded server asks nobody for a password."""
    return make_url(url).set(username=role).render_as_string(hide_password=False)
