"""Which service the commands speak to, and the key for it.

`lethe login` stores both in the user's configuration directory, for the user's eyes only.
`LETHE_URL` and `LETHE_API_KEY` come before what is stored.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import typer

from lethe.addresses import checked

URL, KEY = "LETHE_URL", "LETHE_API_KEY"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A service, and the key for it."""

    url: str
    key: str
    insecure: bool = False
    """Whether the key may travel unencrypted."""

    def __repr__(self) -> str:
        return f"Credentials({self.url!r})"


def place() -> Path:
    """The file of `lethe login`."""
    return Path(typer.get_app_dir("lethe")) / "credentials.json"


def store(credentials: Credentials) -> Path:
    """Keep them, readable for this user alone; the file."""
    file = place()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(asdict(credentials), opened)
    part.replace(file)
    return file


def forget() -> bool:
    """Delete what is stored; whether there was anything."""
    try:
        place().unlink()
    except FileNotFoundError:
        return False
    return True


def find(url: str | None, *, insecure: bool) -> Credentials:
    """Those that a command uses.

    A stored key goes to the service that it was stored for, and to no other.

    Args:
        url: from the command line.
        insecure: the same.
    """
    stored = _stored()
    address = url or os.environ.get(URL) or (stored.url if stored else None)
    if address is None:
        _stop(f"No service is named. Run `lethe login`, or set {URL} and {KEY}.")
    checked(address, insecure=True)  # from here on messages may repeat it
    own = stored is not None and stored.url.rstrip("/") == address.rstrip("/")
    key = os.environ.get(KEY) or (stored.key if stored and own else None)
    if key is None:
        _stop(f"There is no key for {address}. Run `lethe login {address}`, or set {KEY}.")
    return Credentials(address, key, insecure or bool(stored and own and stored.insecure))


def _stored() -> Credentials | None:
    file = place()
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    if os.name == "posix" and mode & 0o077:
        _stop(f"Others may read your key. Run `chmod 600 {file}`, and think of a new key.")
    try:
        return Credentials(**json.loads(text))
    except (ValueError, TypeError):
        _stop(f"{file} is damaged. Delete it, and run `lethe login` again.")


def _stop(reason: str) -> NoReturn:
    raise typer.BadParameter(reason)
