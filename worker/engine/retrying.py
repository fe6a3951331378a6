"""Transactions that outlast a restart of Postgres.

    for attempt in transaction(sessions):
        with attempt as session:
            ...

A `with` cannot repeat its block, but a loop can. The block runs again from its first line, so every
decision must be made inside it, and anything it changes besides rows must tolerate being changed
twice. Jobs get transactions only through `Workbench.transaction`.

When the connection is lost during a commit, its outcome is unknown, and the block also runs again.
A block that ends a job begins with `lease.hold`, which notices that this same attempt has already
ended it: the first commit counts, and the loop stops.
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

GIVE_UP_S = 30
"""How long Postgres may be unreachable."""


def transaction(sessions: sessionmaker[Session]) -> Iterator[AbstractContextManager[Session]]:
    """Attempts at one transaction, until it commits or Postgres has been unreachable for too long.

    Raises:
        DBAPIError: the last attempt's, once time is up; or at once, where a retry does not help.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_delay(GIVE_UP_S),
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
    """Whether a retry helps: Postgres was unreachable, hung up, or preferred another transaction.

    A server that answers gives a code. 08 is a connection error, 57P a server that stops or starts,
    40 a conflict between transactions.
    """
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlstate", None)
    if code is None:
        return isinstance(error, OperationalError) or error.connection_invalidated
    return str(code).startswith(("08", "57P", "40"))
