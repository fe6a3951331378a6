"""What the processes read from their environment, once, when they start."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PositiveInt,
    RedisDsn,
    SecretStr,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url


def _with_driver(url: str) -> str:
    """The same URL for psycopg 3, the one driver that serves async and sync alike."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "postgresql":
        raise ValueError("a postgresql:// URL is needed")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


class KeySource(BaseModel):
    """Where a key that signs the audit trail is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    uri: str = Field(repr=False)
    """`file:/path` or `env:NAME`, for a private key in PEM (PKCS #8, Ed25519); or the URI of a key
    in a KMS, as `securesystemslib` names them."""

    public_key: Path | None = None
    """Of a key in a KMS: its public half, a file in PEM."""


class MigrationSettings(BaseSettings):
    """What migrations need: where the truth is."""

    model_config = SettingsConfigDict(
        env_prefix="LETHE_", frozen=True, use_attribute_docstrings=True, extra="ignore"
    )

    database_url: Annotated[str, AfterValidator(_with_driver)] = Field(repr=False)
    """`postgresql://user:password@host/database`, Postgres 15 or newer."""


class Settings(MigrationSettings):
    """What every process needs besides: where the doorbell and the files are."""

    broker_url: RedisDsn = Field(repr=False)
    """`redis://host:6379/0`, Redis 6 or newer or Valkey. It holds doorbells, nothing else."""

    store: Path
    """Directory of weights and statistics, named by their SHA-256. The worker writes it; the API
    reads the weights that are fetched."""

    log_format: Literal["json", "console"] = "json"

    data_roots: list[Path] = []
    """Directories that dataset and weight URIs may point into. Empty: every URI is refused."""

    factories: list[str] = []
    """Allowed `package.module:factory` of `python` architectures; `package.module:*` allows all
    factories of one module."""

    recipes: list[str] = ["worker.networks.recipes:train"]
    """Allowed `package.module:function` that train a model anew; `package.module:*` as above.
    `worker.networks.recipes:train` is the one that comes with the worker."""

    idempotency_retention: timedelta = timedelta(days=30)
    """How long an `Idempotency-Key` answers with the stored response."""

    webhook_development: bool = False
    """Whether webhooks may be plain http, and lie on this machine or in a private network. Only
    while developing: whoever registers them could then reach what stands there."""


class ApiSettings(Settings):
    """What only the API needs."""

    admin_key: SecretStr = Field(min_length=16)
    """The bearer token that opens every route."""

    max_body_bytes: int = 16 * 2**20
    max_samples_per_request: int = 100_000


class WorkerSettings(Settings):
    """What only the worker needs."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto` takes CUDA when there is a device."""

    lease: timedelta = timedelta(seconds=45)
    """A job whose worker has not been heard of for this long is given to another."""

    heartbeat: timedelta = timedelta(seconds=15)

    sweep_interval: timedelta = timedelta(seconds=5)
    """How often waiting requests are planned, dead workers' jobs freed and doorbells rung again."""

    poll_interval: timedelta = timedelta(seconds=30)
    """How often a worker looks into Postgres by itself, whether it hears doorbells or not."""

    stop_grace: timedelta = timedelta(seconds=20)
    """How long a worker that is to end waits for the cycle in progress."""

    max_losses: int = Field(default=3, ge=1)
    """How many attempts of a job may be lost before it fails."""

    orphan_age: timedelta = timedelta(hours=1)
    """Older files of the store that no row names are deleted."""

    signing_keys: list[KeySource] = []
    """What checkpoints of the audit trail are signed with, by all of them; the first signs
    certificates too. To change the key, put the new one first and leave the old one behind it
    until a checkpoint bears both signatures. Only the process that sweeps needs them; without any
    there are neither checkpoints nor certificates."""

    log_origin: str = Field(default="lethe", pattern=r"^[!-*,-~]{1,200}$")
    """The name of the audit trail and of its keys, in each checkpoint: one that nobody else has,
    such as `lethe.example.com/production`. No spaces, no `+`."""

    checkpoint_events: PositiveInt = 1000
    """So many events after the last checkpoint there is another one."""

    checkpoint_interval: timedelta = timedelta(minutes=10)
    """So long after the last checkpoint there is another one, if there are new events. There is one
    within a sweep of each completed request in any case."""

    anchor_directory: Path | None = None
    """Where each checkpoint is put as a file; storage that can be written to but once."""

    anchor_webhook: HttpUrl | None = Field(default=None, repr=False)
    """Where each checkpoint is sent to, by POST, as text."""

    anchor_tsa: HttpUrl | None = None
    """A time-stamp authority (RFC 3161) that is asked for a token of each checkpoint."""

    anchor_tsa_roots: Path | None = None
    """Certificates of those who may have certified it, in PEM: what its tokens must verify with."""

    suppression_directory: Path | None = None
    """Where digests of what was forgotten are kept besides the database, for `restore-check` once a
    backup was restored: storage that is not restored with it. Whoever can read it, keys included,
    can test guesses of sample ids, as in the database."""

    evidence_retention: timedelta = timedelta(days=400)
    """How long after its end a request can be linked to the ids it named; then it is shredded."""

    job_time_limit: timedelta = timedelta(hours=6)
    """Longest one attempt may run; then its process is killed and the job fails."""

    @model_validator(mode="after")
    def _tokens_can_be_verified(self) -> Self:
        if self.anchor_tsa and not self.anchor_tsa_roots:
            raise ValueError("LETHE_ANCHOR_TSA needs LETHE_ANCHOR_TSA_ROOTS")
        return self

    @model_validator(mode="after")
    def _lease_outlasts_heartbeats(self) -> Self:
        if self.heartbeat * 2 > self.lease:
            raise ValueError("the lease must last for two heartbeats at least")
        return self
