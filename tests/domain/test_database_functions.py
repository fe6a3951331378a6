"""The functions of the database do what they say, whoever calls them, whatever lies in the way."""

import re

import psycopg
import pytest
from psycopg import errors, sql
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from devstack import roles
from domain.states import VersionStatus
from migrations.grants import API, EITHER, WORKER
from tests import factories

SAFE_PATH = "search_path=pg_catalog, public, pg_temp"
DEFINER = {"append_to_log"}
"""The functions that run with the rights of their owner: it gives events their positions, which no
role may choose."""

TRAP = """
    CREATE TEMPORARY TABLE audit_leaves (position bigint, event_id bigint);
    GRANT ALL ON audit_leaves TO PUBLIC;
    CREATE FUNCTION pg_temp.grab() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        EXECUTE 'GRANT lethe_owner TO ' || session_user;
        RAISE EXCEPTION 'the trap ran as %', current_user;
    END $$;
    CREATE TRIGGER grab BEFORE INSERT ON audit_leaves FOR EACH ROW EXECUTE FUNCTION pg_temp.grab()
"""
EVENT = (
    "INSERT INTO public.audit_events (actor, event, subject_id, data) "
    "VALUES ('worker', 'x.happened', gen_random_uuid(), '{}')"
)
VERSION = """
    INSERT INTO public.model_versions (id, model_id, number, status, mode, job_id, weights_sha256,
        statistics_sha256, reservoir_sha256, figures)
    SELECT gen_random_uuid(), model_id, 2, 'champion', 'exact', id, %s, '', '', '{}'
    FROM public.jobs WHERE kind = 'unlearn'
"""


def connect(url, role):
    plain = make_url(roles.as_role(url, role)).set(drivername="postgresql")
    return psycopg.connect(plain.render_as_string(hide_password=False), autocommit=True)


def faults(connection) -> list[str]:
    """What is unsafe about the functions of the schema, in sentences that say what to do."""
    functions = connection.execute(
        "SELECT proname, prosecdef, array_to_string(proconfig, ';'), prosrc, prosqlbody IS NULL, "
        "has_function_privilege('public', oid, 'EXECUTE') "
        "FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY proname"
    ).fetchall()
    relations = {
        name
        for (name,) in connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'v', 'm', 'p', 'f')"
        )
    }
    found = []
    for name, definer, settings, body, is_text, is_open in functions:
        if is_text and SAFE_PATH not in (settings or "").split(";"):
            found.append(f"{name} looks names up where its caller says: add SET {SAFE_PATH}.")
        if is_text:
            bare = sorted(unqualified(body, relations))
            found += [f"{name} names {each} without its schema: write it before." for each in bare]
        if is_open:
            found.append(f"everyone may call {name}: revoke EXECUTE from PUBLIC.")
        if definer and name not in DEFINER:
            found.append(f"{name} runs with its owner's rights: let it run with its caller's.")
    return found


def unqualified(body: str, relations: set[str]) -> set[str]:
    """The relations that the code of a function names without a schema."""
    code = re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", body, flags=re.DOTALL)
    words = re.findall(r'(?<![\w."])"?([a-z_]\w*)"?(?!\w|\s*[.(])', code)
    return relations.intersection(words)


def test_every_function_is_safe(owner_url):
    with connect(owner_url, roles.OWNER) as connection:
        count = connection.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        ).fetchone()
        assert faults(connection) == []
    assert count >= (10,)


@pytest.mark.parametrize(
    ("options", "body", "fault"),
    [
        ("", "RETURN 1;", "looks names up where its caller says"),
        ("SET search_path = public", "RETURN 1;", "looks names up where its caller says"),
        ("SET search_path = public, pg_temp", "RETURN 1;", "where its caller says"),
        ("SECURITY DEFINER", "RETURN 1;", "runs with its owner's rights"),
        ("", "PERFORM 1 FROM jobs; RETURN 1;", "names jobs without its schema"),
        ("", "PERFORM 1 FROM jobs AS mine; RETURN 1;", "names jobs without its schema"),
        ("", "PERFORM 1 FROM jobs mine; RETURN 1;", "names jobs without its schema"),
        ("", "PERFORM 1 FROM public.models, jobs; RETURN 1;", "names jobs without its schema"),
        ("", 'INSERT INTO "rounds" DEFAULT VALUES; RETURN 1;', "names rounds without its schema"),
        ("", "RETURN 1;", "everyone may call bad"),
    ],
)
def test_an_unsafe_function_is_found(owner_url, options, body, fault):
    with connect(owner_url, roles.OWNER) as connection:
        connection.execute(
            f"CREATE FUNCTION bad() RETURNS int LANGUAGE plpgsql {options} "
            f"AS $$ BEGIN {body} END $$"
        )
        connection.execute("GRANT EXECUTE ON FUNCTION bad() TO PUBLIC")

        assert any(fault in said for said in faults(connection))


@pytest.mark.parametrize("role", [API, WORKER, EITHER])
@pytest.mark.parametrize("made", ["TABLE", "TEMPORARY TABLE", "UNLOGGED TABLE", "TEMPORARY VIEW"])
def test_the_service_creates_nothing(own_database_url, role, made):
    what = "AS SELECT 1 AS id" if "VIEW" in made else "(id int)"
    with connect(own_database_url, role) as connection:
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(f"CREATE {made} audit_leaves {what}")
        for other in ("SCHEMA mine", "FUNCTION f() RETURNS int LANGUAGE sql RETURN 1"):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(f"CREATE {other}")


@pytest.fixture
def lax(own_database_url):
    """A database in which everyone may create temporary tables, as before: the other walls hold."""
    name = sql.Identifier(make_url(own_database_url).database or "")
    with connect(own_database_url, roles.SUPERUSER) as superuser:
        superuser.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO PUBLIC").format(name))
    return own_database_url


def test_a_temporary_table_does_not_run_code_as_the_owner(lax):
    with connect(lax, WORKER) as connection:
        connection.execute(TRAP)
        connection.execute(EVENT)

        assert connection.execute("SELECT count(*) FROM pg_temp.audit_leaves").fetchone() == (0,)
        leaves = connection.execute("SELECT position FROM public.audit_leaves").fetchall()
        member = connection.execute("SELECT pg_has_role(current_user, 'lethe_owner', 'MEMBER')")
        assert (leaves, member.fetchone()) == ([(0,)], (False,))


def test_a_temporary_table_does_not_make_tainted_weights_champion(lax, owner_url):
    dataset = factories.dataset()
    model = factories.model(dataset)
    job = factories.job(model_id=model.id, finished=True)
    again = factories.job(model_id=model.id, finished=True)
    tainted = factories.version(
        model, job, status=VersionStatus.SUPERSEDED, superseded_at=factories.NOW
    )
    engine = create_engine(owner_url)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        for row in (dataset, model, job, tainted):
            session.add(row)
            session.flush()
        session.add(again)
    engine.dispose()

    with connect(lax, WORKER) as connection:
        connection.execute("CREATE TEMPORARY TABLE model_versions (LIKE public.model_versions)")
        with pytest.raises(errors.CheckViolation, match="never served again"):
            connection.execute(VERSION + " AND id = %s", [tainted.weights_sha256, again.id])
