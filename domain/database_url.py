"""What `LETHE_DATABASE_URL` says, read once and by libpq's own rules.

API, worker, migrations and commands connect with the same keywords, so the URL means the same to
each of them. No error repeats any part of it that may be a piece of a password.
"""

import re
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

SCHEMES = frozenset(
    {"postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg_async",
     "postgresql+psycopg2"}
)  # fmt: skip
"""The drivers among them take libpq's options, as psycopg does."""

ENCODE = (
    "Percent-encode special characters of the user name and the password: %40 for @, %3A for :, "
    "%2F for /, %3F for ?, %23 for #, %25 for %."
)
CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": (
        "any", "read-write", "read-only", "primary", "standby", "prefer-standby",
    ),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
}  # fmt: skip
NUMBERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout",
)  # fmt: skip
OURS = {
    "client_encoding": "Lethe speaks UTF-8",
    "replication": "Lethe does not replicate",
}


def arguments(url: str) -> dict[str, Any]:
    """The keywords to connect with, as libpq reads them out of the URL.

    What the URL leaves out, libpq takes from its own variables, such as `PGPASSWORD`.

    Raises:
        ValueError: the URL cannot be read, or would not mean the same to every process; the message
            is for people, and holds no secret.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise ValueError(
            "must begin with `postgresql://`, as in `postgresql://user:password@host/database`; "
            "the only driver is psycopg"
        )
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError("holds a space or a line break; remove it, or write a space as %20")
    try:
        given: dict[str, Any] = conninfo_to_dict(f"postgresql://{_with_spaces(rest)}")
    except (psycopg.Error, UnicodeError) as error:
        raise ValueError(_unreadable(str(error), rest)) from None
    _check(given)
    return given


def shown(url: str) -> str:
    """The URL with its password masked, for people. Raises ValueError like `arguments`."""
    given = arguments(url)
    user = quote(given.get("user", ""), safe="")
    password = ":***" if "password" in given else ""
    sign = "@" if user or password else ""
    database = quote(given.get("dbname", ""), safe="")
    return f"postgresql://{user}{password}{sign}{_place(given)}/{database}"


def _place(given: dict[str, Any]) -> str:
    hosts = str(given.get("host") or given.get("hostaddr") or "").split(",")
    ports = str(given.get("port") or "").split(",")
    if len(ports) < len(hosts):
        ports += [ports[-1]] * (len(hosts) - len(ports))
    pairs = zip(hosts, ports, strict=False)
    return ",".join(f"{host}:{port}" if port else host for host, port in pairs)


def _with_spaces(rest: str) -> str:
    """As many programs write URLs, a + among the options is a space. To libpq it is a plus."""
    login, sign, place = rest.rpartition("@")
    address, mark, options = place.partition("?")
    return f"{login}{sign}{address}{mark}{options.replace('+', '%20')}"


def _unreadable(why: str, rest: str) -> str:
    """Why libpq does not read it. It quotes what it stumbled over: only an option's name is safe to
    repeat, and only where the password ended before the options began."""
    before, _, query = rest.partition("?")
    name = re.search(r'invalid URI query parameter: "([a-z_]{1,40})"', why)
    if name and "@" not in query and ("@" in before or ":" not in before):
        return (
            f"has an option that libpq does not know, `{name[1]}`. Remove it, or write it as "
            "libpq does, such as `sslmode=require`"
        )
    return f"is not a URL that libpq can read. {ENCODE}"


def _check(given: dict[str, Any]) -> None:
    hosts = [host for host in str(given.get("host", "")).split(",") if host]
    if not all(host.startswith("/") or re.fullmatch(r"[A-Za-z0-9._:%-]+", host) for host in hosts):
        raise ValueError(f"has a host with a character that no host has. {ENCODE}")
    if "@" in str(given.get("dbname", "")):  # what stands before it is the end of a password
        raise ValueError(f"has a database with an @ in its name. {ENCODE}")
    for port in filter(None, str(given.get("port", "")).split(",")):
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise ValueError(f"has a port that is not a number from 1 to 65535. {ENCODE}")
    for name, choices in CHOICES.items():
        if name in given and given[name] not in choices:
            raise ValueError(f"has an unknown `{name}`; it is one of {', '.join(choices)}")
    for name in NUMBERS:
        if name in given and not re.fullmatch(r"[0-9]{1,9}", str(given[name])):
            raise ValueError(f"has a `{name}` that is not a whole number")
    for name, why in OURS.items():
        if name in given:
            raise ValueError(f"must not set `{name}`: {why}")
