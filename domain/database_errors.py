"""Why the database cannot be used: a kind for machines, a reason for the log, advice for people.

A server that answers gives a SQLSTATE. A refusal to connect comes as text alone (libpq keeps the
code to itself), so there the words of Postgres and of PgBouncer decide.
"""

import re
from typing import Literal

import psycopg
from sqlalchemy import exc

from domain.log import VALUES

Kind = Literal[
    "authentication_failed", "no_such_database", "too_many_connections", "pooler_refused",
    "tls_required", "tls_failed", "read_only", "permission_denied", "starting", "no_space",
    "timeout", "pool_exhausted", "unreachable", "refused",
]  # fmt: skip

REASON_SHOWN = 500
"""Characters."""

_BY_STATE: tuple[tuple[str, Kind], ...] = (
    ("28", "authentication_failed"),
    ("3D", "no_such_database"),
    ("53300", "too_many_connections"),
    ("53", "no_space"),
    ("25006", "read_only"),
    ("42501", "permission_denied"),
    ("57P0", "starting"),
    ("57014", "timeout"),
    ("55P03", "timeout"),
    ("57P05", "timeout"),
    ("25P03", "timeout"),
    ("08P01", "pooler_refused"),
    ("08", "unreachable"),
)
"""From the beginning of a SQLSTATE; the first that fits."""

_BY_TEXT: tuple[tuple[str, Kind], ...] = (
    (r"pg_hba\.conf rejects", "authentication_failed"),
    (r"server does not support SSL|certificate|SSL error|TLS error", "tls_failed"),
    (r"no encryption|SSL (connection )?is required|SSL required|SSL off", "tls_required"),
    (
        r"unsupported startup parameter|pgbouncer|query_wait_timeout|server_login_retry"
        r"|server login has been failing|client_login_timeout|login rejected|no working server"
        r"|unsupported protocol|bouncer config error|database .* is (disabled|paused)",
        "pooler_refused",
    ),
    (
        r"too many (clients|connections)|connection slots are reserved|no more connections allowed"
        r"|max_client_conn",
        "too_many_connections",
    ),
    (r"database \S* ?does not exist|no such database", "no_such_database"),
    (
        r"authentication failed|no pg_hba\.conf entry|role \S* ?does not exist|no password supplied"
        r"|not permitted to log in|no such user|auth failed|permission denied for database"
        r"|SASL|wrong password",
        "authentication_failed",
    ),
    (r"starting up|shutting down|in recovery mode|not yet accepting", "starting"),
    (r"session is (read-only|not read-only)|hot standby|not in hot standby", "read_only"),
    (
        r"Connection refused|could not translate host name|timed? ?out|timeout expired"
        r"|No such file or directory|No route to host|Network is unreachable|Connection reset"
        r"|server closed the connection|failed to resolve host|Name or service not known",
        "unreachable",
    ),
)
"""From the words of a refusal; the first that fits."""

ADVICE: dict[Kind, str] = {
    "authentication_failed": "It refuses the user or the password of LETHE_DATABASE_URL, or "
    "pg_hba.conf does not admit them.",
    "no_such_database": "There is no database of the name in LETHE_DATABASE_URL. Create it, and "
    "run `alembic upgrade head`.",
    "too_many_connections": "It has no connection left for this role. Raise its limit, or run "
    "fewer processes.",
    "pooler_refused": "The pooler in front of it refuses the service. docs/operators.md says how "
    "PgBouncer is to be configured; the log says what it refused.",
    "tls_required": "It wants TLS. Add `sslmode=verify-full` to LETHE_DATABASE_URL.",
    "tls_failed": "TLS failed: it has none, or its certificate is not trusted. Check `sslmode` and "
    "`sslrootcert` in LETHE_DATABASE_URL.",
    "read_only": "It is read-only: a standby, or a role that may not write. Name the primary in "
    "LETHE_DATABASE_URL.",
    "permission_denied": "The role of LETHE_DATABASE_URL may not use the tables. Connect as "
    "`lethe_app` or a member of it, and run `alembic upgrade head` as the owner.",
    "starting": "It is starting or stopping. Wait.",
    "no_space": "It is out of disk or memory. Make room.",
    "timeout": "It took too long. Try again later.",
    "pool_exhausted": "All connections of this process are in use. Try again later.",
    "unreachable": "Nothing answers at the address in LETHE_DATABASE_URL. Check that it runs and "
    "the address is right.",
    "refused": "It refuses the service; the log says why.",
}
"""For people; names no host, user or database, since anybody may read `/readyz`."""


def kind_of(error: BaseException) -> Kind | None:
    """Why the database could not be used; None for an error that has another cause."""
    if isinstance(error, exc.TimeoutError):
        return "pool_exhausted"
    if isinstance(error, TimeoutError):
        return "timeout"
    cause = _cause(error)
    state = getattr(cause, "sqlstate", None)
    if state is not None:
        for prefix, kind in _BY_STATE:
            if state.startswith(prefix):
                return kind
        # Others of OperationalError are of the server, too, whatever they are.
        return "refused" if isinstance(cause, psycopg.OperationalError) else None
    if not isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError):
        return None
    text = re.sub(r"""(["'])[^"']*\1""", "-", str(cause))  # names of hosts, users and databases
    for words, kind in _BY_TEXT:
        if re.search(words, text, re.IGNORECASE):
            return kind
    return "refused"


def reason_of(error: BaseException) -> str:
    """What the server or libpq said, in one line, for the log: hosts and users, but no password
    (neither ever repeats one) and no row."""
    cause = _cause(error)
    said = getattr(getattr(cause, "diag", None), "message_primary", None) or str(cause)
    said = VALUES.sub("", said)
    return " ".join(said.split())[:REASON_SHOWN]


def told(error: BaseException) -> dict[str, str]:
    """Both, as fields of a log line."""
    return {"kind": kind_of(error) or type(_cause(error)).__name__, "why": reason_of(error)}


def _cause(error: BaseException) -> BaseException:
    return getattr(error, "orig", None) or error
