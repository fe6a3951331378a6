"""What the processes read from their environment, once, when they start.

The docstring of a field says what it is for, its unit where the type does not, and, in its last
sentence, which processes act on it: `docs/configuration.md` is made from these classes.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    NonNegativeInt,
    PositiveInt,
    Secret,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from domain import database_url as database_urls
from domain.broker_url import Broker
from domain.states import JobKind


def _database(url: SecretStr) -> SecretStr:
    database_urls.arguments(url.get_secret_value())
    return url


def _broker(url: SecretStr) -> SecretStr:
    Broker.of(url)
    return url


def _key(key: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{16,}", key.get_secret_value()):
        raise ValueError(
            "must be 16 or more visible ASCII characters, without spaces and line breaks; make one "
            "with `openssl rand -base64 32`"
        )
    return key


AdminKey = Annotated[SecretStr, AfterValidator(_key)]


def _some(kinds: list[JobKind]) -> list[JobKind]:
    if not kinds:
        raise ValueError("must name at least one kind of job; leave it out for all kinds")
    return kinds


JobKinds = Annotated[list[JobKind], AfterValidator(_some)]


class KeySource(BaseModel):
    """Where a key that signs the audit trail is."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    uri: str = Field(repr=False)
    """`file:/path` or `env:NAME` for a private key in PEM (PKCS #8, Ed25519), or the URI of a key
    in a KMS in the form that `securesystemslib` uses."""

    public_key: Path | None = None
    """For a key in a KMS: a PEM file with its public half."""


class MigrationSettings(BaseSettings):
    """What migrations need."""

    model_config = SettingsConfigDict(
        env_prefix="LETHE_",
        frozen=True,
        use_attribute_docstrings=True,
        extra="ignore",
        hide_input_in_errors=True,  # a wrong password is still one
    )

    database_url: Annotated[SecretStr, AfterValidator(_database)]
    """The database: `postgresql://user:password@host/database`, Postgres 15 or newer, with libpq's
    options behind a `?`, such as `sslmode=verify-full`. Migrations connect as the owner of the
    tables, the API as the role `lethe_api`, worker and beat as `lethe_worker`.
    Read by migrations, api, worker and beat."""


class Settings(MigrationSettings):
    """What every process needs in addition: where the doorbell and the files are."""

    broker_url: Annotated[SecretStr, AfterValidator(_broker)]
    """The broker: `redis://user:password@host:6379/0`, Redis 6 or newer, or Valkey. `rediss://`
    means TLS with a verified certificate; `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`,
    `ssl_cert_reqs` and `ssl_check_hostname` say how, behind a `?`. `unix:///path?db=0` is a socket.
    The broker holds doorbells and nothing else, so its data may be lost.
    Read by api, worker and beat."""

    store: Path
    """The directory of weights, statistics, reservoirs and features, in files named by their
    SHA-256. Worker and beat write it; the API only reads the weights that are fetched, so mount it
    read-only there.
    Read by api, worker and beat."""

    log_format: Literal["json", "console"] = "json"
    """How log lines are written: `json`, one object per line, or `console`, for people.
    Read by api, worker and beat."""

    data_roots: list[Path] = []
    """The directories that the URIs of datasets and weights may point into. When it is empty,
    every URI is refused. Read by api and worker."""

    factories: list[str] = []
    """The functions that may build the network of a `python` architecture, each written
    `package.module:function`. `package.module:*` allows every function of a module.
    Read by api and worker."""

    recipes: list[str] = ["worker.networks.recipes:train"]
    """The functions that may retrain a model, written in the same way.
    `worker.networks.recipes:train` comes with the worker. `worker.recipes:head`, which fits nothing
    but a head, needs no permission. Read by api and worker."""

    idempotency_retention: timedelta = timedelta(days=30)
    """How long a repeated `Idempotency-Key` gets the answer it got the first time.
    Read by api and beat."""

    webhook_development: bool = False
    """Whether webhooks may use plain `http` and point to this machine or a private network. Set it
    only while developing: anyone who can register a webhook could then reach internal services.
    Read by api and beat."""


class ApiSettings(Settings):
    """What only the API needs."""

    admin_key: AdminKey
    """The bearer token that opens every route, 16 characters or more. `python -m worker.restore
    --apply` sends it too. Read by api."""

    max_body_bytes: int = 16 * 2**20
    """The largest request body, in bytes. A larger one is refused before all of it is read.
    Read by api."""

    body_timeout: timedelta = timedelta(seconds=60)
    """How long a request body may take to arrive. Then the request is answered with 408.
    Read by api."""

    max_samples_per_request: int = 100_000
    """The largest number of samples in one request, named by ids or found by subjects, and the
    largest number of subjects. Read by api."""

    metrics_key: SecretStr | None = Field(default=None, min_length=16)
    """A bearer token for `/metrics`, 16 characters or more, so that Prometheus need not know
    `LETHE_ADMIN_KEY`, which opens it too. Without one, `/metrics` needs no key. Read by api."""

    docs: bool = True
    """Whether `/docs` and `/openapi.json` are served, which need no key. Read by api."""

    log_clients: Literal["address", "network", "none"] = "network"
    """What the log says of a client that sent no valid key: its `address`, only the `network` of it
    (24 bits of an IPv4 address, 48 of an IPv6 address), or `none` of it. Read by api."""


class WorkerSettings(Settings):
    """What only the worker and its clock (`beat`) need."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where jobs compute. `auto` uses CUDA if a device is present. Read by worker."""

    job_kinds: JobKinds = list(JobKind)
    """The kinds of jobs that this worker takes. A job whose kind no worker takes waits for ever, so
    leave this out for one of them at least. Read by worker."""

    lease: timedelta = timedelta(seconds=45)
    """How long a worker may be silent before its job goes to another worker. It must be at least
    twice the heartbeat. Read by worker."""

    heartbeat: timedelta = timedelta(seconds=15)
    """How often a worker renews the lease of its job. Read by worker."""

    sweep_interval: timedelta = timedelta(seconds=5)
    """How often waiting requests are planned, jobs of lost workers freed, doorbells rung again and
    webhooks sent. Read by beat."""

    poll_interval: timedelta = timedelta(seconds=30)
    """How often a worker looks for jobs in Postgres on its own. It needs no broker to find one.
    Read by worker."""

    stop_grace: timedelta = timedelta(seconds=20)
    """How long a stopping worker waits for the current cycle to end. Keep it below the grace period
    of whatever stops the worker. Read by worker."""

    max_losses: int = Field(default=3, ge=1)
    """How many attempts of a job may be lost with their worker before the job fails.
    Read by worker and beat."""

    orphan_age: timedelta = timedelta(hours=1)
    """How old a file of the store must be before it is deleted because no row names it.
    Read by beat."""

    signing_keys: list[KeySource] = []
    """The keys that sign the checkpoints of the audit trail, newest first: each signs, and the
    first signs certificates as well. `[{"uri": "file:/path"}]`, `env:NAME`, or a KMS. To change the
    key, put the new one first and keep the old one behind it until a checkpoint bears both
    signatures. Without a key there are no checkpoints and no certificates. Read by beat."""

    log_origin: str = Field(default="lethe", pattern=r"^[!-*,-~]{1,200}$")
    """The name of the audit trail and of its keys, written in each checkpoint. Choose one that
    nobody else has, such as `lethe.example.com/production`, without spaces and `+`.
    Read by beat."""

    checkpoint_events: PositiveInt = 1000
    """A checkpoint is made after this many new events. Read by beat."""

    checkpoint_interval: timedelta = timedelta(minutes=10)
    """A checkpoint is made after this time if there are new events. After a completed request one
    is made within a sweep in any case. Read by beat."""

    anchor_directory: Path | None = None
    """The directory into which each checkpoint is written as a file. Use write-once storage.
    Read by beat."""

    anchor_webhook: Secret[HttpUrl] | None = None
    """The URL to which each checkpoint is sent, by POST, as text. Read by beat."""

    anchor_tsa: Secret[HttpUrl] | None = None
    """The time-stamp authority (RFC 3161) that stamps each checkpoint. It needs
    `LETHE_ANCHOR_TSA_ROOTS`. Read by beat."""

    anchor_tsa_roots: Path | None = None
    """A PEM file of root certificates. The authority's tokens must verify against them.
    Read by beat."""

    suppression_directory: Path | None = None
    """The directory that keeps digests of what was forgotten outside the database, so that
    `python -m worker.restore` can find what a restored backup brought back. Never restore it
    together with the database. Whoever can read it, keys included, can test guesses of sample ids,
    as in the database. Read by beat."""

    evidence_retention: timedelta = timedelta(days=400)
    """How long after its end a request can still be linked to the ids it named. Then it is
    shredded. Read by beat."""

    job_time_limit: timedelta = timedelta(hours=6)
    """How long one attempt of a job may run. Then its process is killed and the job fails.
    Read by worker."""

    job_memory_bytes: NonNegativeInt | None = None
    """The most memory that a job's process may reserve, in bytes, beside that of a GPU. Beyond it
    the job fails with the reason `memory`. Left out, it is what the machine or the container has,
    and there is no limit for jobs on a GPU; `0` means no limit. Read by worker."""

    @model_validator(mode="after")
    def _tokens_can_be_verified(self) -> Self:
        if self.anchor_tsa and not self.anchor_tsa_roots:
            raise ValueError("set LETHE_ANCHOR_TSA_ROOTS too when you set LETHE_ANCHOR_TSA")
        return self

    @model_validator(mode="after")
    def _lease_outlasts_heartbeats(self) -> Self:
        if self.heartbeat * 2 > self.lease:
            raise ValueError("LETHE_LEASE must be at least twice LETHE_HEARTBEAT")
        return self
