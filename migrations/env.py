"""Runs migrations against `LETHE_DATABASE_URL`, each in its own transaction.

An upgrade to the newest schema ends with the rights of the service's roles: `migrations.settling`.
"""

from alembic import context
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from domain import database_errors, environment
from domain.database import sync_engine
from domain.database_url import shown
from domain.settings import MigrationSettings
from domain.tables import Base
from migrations import settling


def is_upgrade() -> bool:
    """Whether this is to change the database, not to compare it with the tables."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def run(engine: Engine) -> None:
    with engine.connect() as connection:
        if is_upgrade():
            settling.require_plain_owner(connection)
        context.configure(
            connection=connection, target_metadata=Base.metadata, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
    with engine.begin() as connection:
        reached = MigrationContext.configure(connection).get_current_heads()
        if is_upgrade() and set(reached) == set(context.script.get_heads()):
            settling.settle(connection)


def require_connection(engine: Engine, url: str) -> None:
    """End in sentences, not in a traceback, where there is none."""
    try:
        engine.connect().close()
    except OperationalError as error:
        kind = database_errors.kind_of(error) or "refused"
        raise SystemExit(
            f"No connection to {shown(url)} ({kind}): {database_errors.reason_of(error)}\n"
            f"{database_errors.ADVICE[kind]}"
        ) from None


settings = environment.read(MigrationSettings)
engine = sync_engine(settings.database_url, limits=None)
try:
    require_connection(engine, settings.database_url.get_secret_value())
    run(engine)
finally:
    engine.dispose()
