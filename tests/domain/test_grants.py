"""What the service's roles may do is what `migrations/grants.py` says, and no more."""

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from devstack import roles
from domain.tables import Base, derived_data
from migrations import settling
from migrations.grants import API, EITHER, TABLES, WORKER

DECLARATION = "migrations/grants.py"


@pytest.fixture
def owner(owner_url):
    """A connection of the owner; what it does is undone."""
    engine = create_engine(owner_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_every_table_has_a_line():
    tables = {*Base.metadata.tables, derived_data.name, "alembic_version"}

    for name in sorted(tables - TABLES.keys()):
        pytest.fail(
            f"{name} has no line in {DECLARATION}: add one that says what {API} and {WORKER} may "
            "do with it. Without it the service can neither read nor write the table."
        )
    assert tables == TABLES.keys(), f"{DECLARATION} names tables that do not exist"


def test_every_column_can_be_changed_by_somebody_or_is_fixed(owner):
    computed = settling.filled_in(owner)
    for name, table in Base.metadata.tables.items():
        line = TABLES[name]
        changed = {column for _, may in line.rights() for column in may.update.split()}
        fixed = set(line.fixed.split())
        for column in table.columns:
            known = column.primary_key or computed[name][column.name]
            if not known and column.name not in changed | fixed:
                pytest.fail(
                    f"{name}.{column.name} is not in {DECLARATION}: name it in `update` of the "
                    "role that changes it in a row that exists, or in `fixed` if nobody does."
                )
        assert changed | fixed <= {column.name for column in table.columns}, name
        assert not changed & fixed, name


def test_a_role_has_what_is_declared_and_nothing_else(owner):
    present, declared = settling.present(owner), settling.declared(owner)

    assert present - declared == set(), "granted, and not declared"
    assert declared - present == set(), "declared, and not granted: run the migrations"
    assert {grant.role for grant in declared} == {API, WORKER}
    assert len(declared) > 300


@pytest.mark.parametrize(
    "change",
    [
        f"GRANT UPDATE ON tombstones TO {API}",
        f"GRANT UPDATE (verdict) ON jobs TO {API}",
        f"GRANT ALL ON certificates TO {EITHER}",
        "GRANT SELECT ON samples TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION append_to_log() TO PUBLIC",
        f"GRANT CREATE ON SCHEMA public TO {WORKER}",
        f"GRANT USAGE ON SEQUENCE audit_events_id_seq TO {API}",
        f"REVOKE SELECT ON jobs FROM {API}",
        f"REVOKE ALL ON audit_events FROM {WORKER}",
        f"REVOKE INSERT (actor) ON audit_events FROM {WORKER}",
        f"GRANT INSERT ON audit_events TO {WORKER}",
    ],
)
def test_an_upgrade_puts_right_what_was_changed_by_hand(owner, change):
    owner.execute(text(change))
    assert settling.present(owner) != settling.declared(owner)

    settling.settle(owner)

    assert settling.present(owner) == settling.declared(owner)


def test_who_cannot_close_the_database_is_told_what_to_do(owner_url):
    superuser = create_engine(roles.as_role(owner_url, roles.SUPERUSER))
    with superuser.connect() as connection:
        name = make_url(owner_url).database
        connection.execute(text(f'ALTER DATABASE "{name}" OWNER TO {roles.SUPERUSER}'))
        connection.execute(text(f'GRANT TEMPORARY ON DATABASE "{name}" TO PUBLIC'))
        connection.execute(text(f"SET ROLE {roles.OWNER}"))
        with pytest.raises(RuntimeError, match=r"temporary tables.*Run migrations/roles\.sql"):
            settling.settle(connection)
    superuser.dispose()


def test_a_time_is_the_databases_to_fill_in_and_a_constant_is_not(owner):
    owner.execute(
        text(
            "CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT "
            "now(), today date DEFAULT CURRENT_DATE, twice int GENERATED ALWAYS AS (1 + 1) STORED, "
            "key uuid DEFAULT gen_random_uuid(), yes bool DEFAULT false, n int DEFAULT 0, "
            "said varchar DEFAULT 'no', all_of jsonb DEFAULT '{}', nothing int)"
        )
    )

    later = settling.filled_in(owner)["later"]

    assert {name for name, computed in later.items() if computed} == {
        "id", "at", "today", "twice", "key",
    }  # fmt: skip


def test_what_is_made_later_is_closed_to_the_service(owner):
    owner.execute(text("CREATE TABLE later (id int)"))
    owner.execute(text("CREATE FUNCTION later() RETURNS int LANGUAGE sql RETURN 1"))

    for role in (API, WORKER, EITHER):
        asked = "SELECT has_table_privilege(:role, 'later', 'SELECT, INSERT, UPDATE, DELETE')"
        assert owner.scalar(text(asked), {"role": role}) is False
        called = "SELECT has_function_privilege(:role, 'later()', 'EXECUTE')"
        assert owner.scalar(text(called), {"role": role}) is False


def test_a_superuser_is_not_to_own_the_tables(owner_url, alembic):
    with pytest.raises(RuntimeError, match=r"postgres is a superuser.*run the migrations as"):
        alembic("upgrade", roles.as_role(owner_url, roles.SUPERUSER), "head")


def test_who_owns_nothing_is_told_who_does(owner_url, alembic):
    with pytest.raises(RuntimeError, match=r"lethe_api may not create tables.*as lethe_owner"):
        alembic("upgrade", roles.as_role(owner_url, API), "head")


def test_no_role_of_ours_may_do_more_than_its_rights(owner):
    rows = owner.execute(
        text(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication "
            "OR rolbypassrls AS mighty FROM pg_roles WHERE rolname LIKE 'lethe%'"
        )
    ).all()
    owned = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = "

    assert {tuple(row) for row in rows} == {
        (role, False) for role in (API, WORKER, EITHER, roles.OWNER)
    }
    assert owner.scalars(text(owned + "'public'::regnamespace")).all() == [roles.OWNER]


def test_a_role_that_is_missing_is_asked_for_in_a_sentence(owner_url, alembic):
    alembic("downgrade", owner_url, "f20c6b8d714a")
    superuser = create_engine(roles.as_role(owner_url, roles.SUPERUSER))
    with superuser.connect() as connection:
        connection.execute(text(f"REVOKE {WORKER} FROM {EITHER}"))
        connection.commit()
        try:
            with pytest.raises(Exception, match=r"Run migrations/roles\.sql as a superuser"):
                alembic("upgrade", owner_url, "head")
        finally:
            connection.execute(text(f"GRANT {WORKER} TO {EITHER}"))
            connection.commit()
    superuser.dispose()


def test_the_roles_can_be_made_again(owner_url):
    roles.make_roles(roles.as_role(owner_url, roles.SUPERUSER))

    with psycopg.connect(roles.as_role(owner_url, WORKER).replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE TEMPORARY TABLE mine (id int)")
