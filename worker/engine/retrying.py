"""Transactions that outlast a restart of Postgres.

    for attempt in transaction(sessions):
        with attempt as session:
            ...

A `with` cannot repeat its block, a loop can. The block is done again from its first line: it must
decide everything inside, and whatever it changes besides rows must bear to be changed twice. Jobs
have it as `Workbench.transaction`, and no other way to a session.

When the connection is lost during a commit, nobody knows whether the commit was made, and the block
is done again. One that ends a job begins with `lease.hold`, which sees that this very attempt has
ended the job: then the first commit counts, and the loop is over.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from tenacity import (
    AttemptManager,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from domain.errors import JobEnded

PATIENCE_S = 30
"""How long Postgres may be away."""


def transaction(sessions: sessionmaker[Session]) -> Iterator[AbstractContextManager[Session]]:
    """Attempts at one transaction, until it is committed or Postgres has been away for too long.

    Raises:
        DBAPIError: the last attempt's, then; or at once, where trying again does not help.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )
    for attempt in retrying:
        yield _attempt(attempt, sessions)


@contextmanager
def _attempt(attempt: AttemptManager, sessions: sessionmaker[Session]) -> Iterator[Session]:
    first = attempt.retry_state.attempt_number == 1
    with attempt, nullcontext() if first else suppress(JobEnded), sessions.begin() as session:
        yield session


def is_transient(error: BaseException) -> bool:
    """Whether Postgres could not be reached, hung up, or gave way to another transaction: trying
    again helps.

    A server that answers says why in a code. 08 and 57P are of connections, and of one that stops
    or starts; 40 of transactions that were in each other's way.
    """
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlstate", None)
    if code is None:
        return isinstance(error, OperationalError) or error.connection_invalidated
    return str(code).startswith(("08", "57P", "40"))
