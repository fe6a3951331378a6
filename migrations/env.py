"""Runs migrations against `LETHE_DATABASE_URL`, each in its own transaction."""

from alembic import context

from domain.database import sync_engine
from domain.settings import MigrationSettings
from domain.tables import Base

engine = sync_engine(MigrationSettings().database_url)
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=Base.metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
