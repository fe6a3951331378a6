"""How the API and the worker connect."""

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from domain.database import JOB, REQUEST, Limits, async_engine, sync_engine

TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


async def test_plans_are_kept_beside_the_options_of_the_url(database_url):
    url = make_url(database_url).update_query_dict({"options": "-c work_mem=5MB"})
    engine = async_engine(url.render_as_string(hide_password=False))
    async with engine.connect() as connection:
        found = [
            await connection.scalar(text(f"SHOW {setting}"))
            for setting in ("plan_cache_mode", "work_mem")
        ]
    await engine.dispose()

    assert found == ["force_generic_plan", "5MB"]


def shown(engine, *names):
    with engine.connect() as connection:
        found = [connection.scalar(text(f"SHOW {name}")) for name in names]
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (REQUEST, ["1min", "10s", "1min"]),
        (JOB, ["1h", "5min", "10min"]),
        (None, ["0", "0", "0"]),  # migrations
    ],
)
def test_no_statement_lasts_for_ever_but_a_migration(database_url, limits, expected):
    assert shown(sync_engine(database_url, limits), *TIMEOUTS) == expected


async def test_the_api_has_limits(database_url):
    engine = async_engine(database_url)
    async with engine.connect() as connection:
        found = [await connection.scalar(text(f"SHOW {name}")) for name in TIMEOUTS]
    await engine.dispose()

    assert found == ["1min", "10s", "1min"]


def test_the_url_has_the_last_word(database_url):
    url = make_url(database_url).update_query_dict({"options": "-c statement_timeout=7s"})
    engine = sync_engine(url.render_as_string(hide_password=False))

    assert shown(engine, *TIMEOUTS) == ["7s", "10s", "1min"]


def test_a_statement_that_takes_too_long_is_ended(database_url):
    engine = sync_engine(database_url, Limits(statement=1, lock=1, idle=1))
    with engine.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(60)"))
    engine.dispose()
