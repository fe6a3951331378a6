"""Transactions that outlast a restart of Postgres.

    for attempt in patiently():
        with attempt, sessions.begin() as session:
            ...

The block is repeated as a whole, also when the connection was lost while it was being committed:
it must be one that may be done twice.
"""

from sqlalchemy.exc import DBAPIError, OperationalError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

PATIENCE_S = 30
"""How long Postgres may be away."""


def patiently() -> Retrying:
    """Attempts at a transaction, until it succeeds or Postgres has been away for too long."""
    return Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )


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
