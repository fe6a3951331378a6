"""Why the database cannot be used: real refusals of a real server."""

import json
import socket
import threading
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from domain.database import async_engine, async_sessions, sync_engine
from domain.database_errors import ADVICE, kind_of, reason_of, told
from tests.conftest import connect

PASSWORD = "p%40@:/é;#?[&+ \"'\\MARKER"
ROLES = {
    "tricky": "LOGIN",
    "full_up": "LOGIN CONNECTION LIMIT 0",
    "reader": "LOGIN",
    "stranger": "LOGIN",
    "locked_out": "NOLOGIN",
}


@pytest.fixture(scope="module")
def place(servers, new_database, migrated_template):
    """The query of a URL that leads to a migrated database, where roles are refused."""
    url = make_url(new_database(migrated_template))
    with psycopg.connect(servers.superuser_url, autocommit=True) as owner:
        for role, how in ROLES.items():
            owner.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(role), sql.SQL(how)))
        owner.execute(sql.SQL("ALTER ROLE tricky PASSWORD {}").format(sql.Literal(PASSWORD)))
        owner.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        owner.execute("GRANT lethe_app TO reader, tricky")
        hba = Path(owner.execute("SHOW hba_file").fetchone()[0])
        before = hba.read_text()
        hba.write_text(f"local all tricky scram-sha-256\nlocal all nobody reject\n{before}")
        owner.execute("SELECT pg_reload_conf()")
        rules = "SELECT count(*) FROM pg_hba_file_rules WHERE 'tricky' = ANY(user_name)"
        until = monotonic() + 5
        while owner.execute(rules).fetchone()[0] == 0 and monotonic() < until:
            sleep(0.05)
        sleep(0.2)  # the postmaster reads the file too
        yield url
        hba.write_text(before)
        owner.execute("SELECT pg_reload_conf()")
        for role in ROLES:
            owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


@pytest.fixture
def url_of(place):
    def make(user, password=None, database=None, host=None, **options):
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        query = {**({} if host else place.query), **options}
        asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        return f"postgresql://{login}@{host or ''}/{database or place.database}?{asked}"

    return make


REFUSALS = [
    ({"user": "tricky", "password": f"{PASSWORD}x"}, "authentication_failed"),
    ({"user": "tricky"}, "authentication_failed"),
    ({"user": "ghost"}, "authentication_failed"),
    ({"user": "locked_out"}, "authentication_failed"),
    ({"user": "nobody"}, "authentication_failed"),
    ({"user": "postgres", "database": "nowhere"}, "no_such_database"),
    ({"user": "full_up"}, "too_many_connections"),
    ({"user": "reader"}, "read_only"),
    ({"user": "stranger"}, "permission_denied"),
    ({"user": "x", "password": PASSWORD, "host": "127.0.0.1:1"}, "unreachable"),
    ({"user": "x", "password": PASSWORD, "host": "pgbouncer.certificate.invalid"}, "unreachable"),
]


@pytest.mark.parametrize(("who", "kind"), REFUSALS, ids=[f"{who}" for who, _ in REFUSALS])
async def test_the_log_has_the_reason_and_readyz_the_kind(
    app, client, url_of, problem, capsys, who, kind
):
    engine = async_engine(SecretStr(url_of(**who)))
    connect(app, async_sessions(engine))

    body = problem(await client.get("/readyz"), 503, "unavailable")
    again = await client.get("/v1/jobs")
    await engine.dispose()

    assert body["database"] == kind
    assert ADVICE[kind] in body["detail"]
    for secret in ("MARKER", who["user"], "127.0.0.1", "invalid", "nowhere"):
        assert secret not in body["detail"].replace(ADVICE[kind], "")
    logged = capsys.readouterr().out
    assert "MARKER" not in logged
    if kind != "read_only":  # reading is possible
        assert problem(again, 503, "unavailable")["database"] == kind
        first = json.loads(logged.splitlines()[0])
        assert (first["event"], first["kind"]) == ("database.unavailable", kind)
        assert len(first["why"]) > 20


@pytest.mark.parametrize("user", ["tricky"])
async def test_a_password_of_any_characters_means_the_same_to_every_client(url_of, user):
    url = url_of(user, PASSWORD, application_name="a+b c")

    sync = sync_engine(url)
    with sync.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == user
        assert connection.scalar(text("SHOW application_name")) == "a+b c"
    sync.dispose()
    engine = async_engine(SecretStr(url))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT current_user")) == user
        assert await connection.scalar(text("SHOW application_name")) == "a+b c"
    await engine.dispose()
    for shown in (repr(sync), str(sync.url), repr(engine), str(engine.url)):
        assert "MARKER" not in shown


@pytest.fixture
def without_tls():
    """The port of a server that says it has no TLS, as Postgres does, and hangs up."""

    def answer():
        for _ in range(2):
            client, _ = listener.accept()
            with client:
                client.recv(8)
                client.sendall(b"N")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]


async def test_options_of_tls_reach_both_clients(without_tls):
    url = f"postgresql://x:MARKER@127.0.0.1:{without_tls}/x?sslmode=require"

    with pytest.raises(DBAPIError) as first, sync_engine(url).connect():
        pass
    with pytest.raises(DBAPIError) as second:
        async with async_engine(url).connect():
            pass

    for refused in (first, second):
        assert told(refused.value)["kind"] == "tls_failed"
        assert "server does not support SSL" in told(refused.value)["why"]
        assert "MARKER" not in str(refused.value)


async def test_what_the_service_itself_did_wrong_is_no_refusal(sessions):
    async with sessions() as session:
        with pytest.raises(DBAPIError) as raised:
            await session.execute(text("SELECT no_such_column"))

    assert kind_of(raised.value) is None
    assert "no_such_column" in reason_of(raised.value)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "u", database "d", no encryption',
         "tls_required"),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "u", SSL encryption',
         "authentication_failed"),
        ("server does not support SSL, but SSL was required", "tls_failed"),
        ("SSL error: certificate verify failed", "tls_failed"),
        ("FATAL:  unsupported startup parameter: options", "pooler_refused"),
        ("FATAL:  pgbouncer cannot connect to server", "pooler_refused"),
        ("FATAL:  query_wait_timeout", "pooler_refused"),
        ("FATAL:  SASL authentication failed", "authentication_failed"),
        ("FATAL:  no such database: x", "no_such_database"),
        ("FATAL:  no more connections allowed (max_client_conn)", "too_many_connections"),
        ("FATAL:  sorry, too many clients already", "too_many_connections"),
        ("FATAL:  the database system is starting up", "starting"),
        ("FATAL:  the database system is in recovery mode", "starting"),
        ("connection timeout expired", "unreachable"),
        ("server closed the connection unexpectedly", "unreachable"),
        ("session is read-only", "read_only"),
        ("FATAL:  Passwort-Authentifizierung für Benutzer »x« fehlgeschlagen", "refused"),
    ],
)  # fmt: skip
def test_words_of_postgres_and_of_pgbouncer(said, kind):
    """What a local server cannot be made to say."""
    assert kind_of(psycopg.OperationalError(f"connection failed: {said}")) == kind
