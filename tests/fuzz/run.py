"""A run of the fuzzer: a database with something in it, the API on it, and many questions."""

from contextlib import suppress
from copy import deepcopy
from pathlib import Path

from schemathesis.python import asgi
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.orm import sessionmaker
from starlette.types import ASGIApp, Receive, Scope, Send

from devstack import roles
from domain.settings import ApiSettings, WorkerSettings
from service.app import create_app
from tests.fuzz import seeds
from tests.fuzz.harness import Findings, Fuzzer

KEY = "a-key-for-tests-only"


def fuzzed(
    database_url: str, broker_url: str, directory: Path, *, cases: int, number: int
) -> Findings:
    """Fuzz the API in this process, on a migrated database that is only for this.

    Args:
        cases: about how many requests; a fifth of them in stories of several.
        number: of the dice.
    """
    own = make_url(database_url).set(drivername="postgresql+psycopg", username=roles.OWNER)
    url = roles.as_role(database_url, roles.ROLES["api"])
    common = {"database_url": url, "broker_url": broker_url, "store": directory / "store"}
    engine = create_engine(own, poolclass=NullPool)
    sessions = sessionmaker(engine, expire_on_commit=False)
    seeds.put(sessions, WorkerSettings(**common))
    seeds.files(sessions, directory / "store")
    with sessions() as session:
        real = seeds.real(session)
    engine.dispose()
    app = create_app(ApiSettings(**common, admin_key=KEY, data_roots=[directory]))
    fuzzer = Fuzzer(after_crashes(app), deepcopy(app.openapi()), KEY, real=real, number=number)
    try:
        fuzzer.other_methods()
        left = cases - fuzzer.findings.cases
        fuzzer.fuzz(left * 4 // 5)
        fuzzer.walk(cases - fuzzer.findings.cases)
    finally:
        asgi.shutdown_lifespans()
    return fuzzer.findings


def after_crashes(app: ASGIApp) -> ASGIApp:
    """The application, without the exception that it raises again after a 500."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):
            await app(scope, receive, send)

    return answering
