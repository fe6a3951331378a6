"""A database with an object in each state, for the fuzzer to ask for."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker
from uuid_utils.compat import uuid7

from domain import trail
from domain.events import RequestCompleted
from domain.objects import path_of
from domain.settings import WorkerSettings
from domain.states import (
    DeliveryStatus,
    JobKind,
    JobStatus,
    RegistrationStatus,
    RequestStatus,
    VersionStatus,
    WebhookStatus,
)
from domain.tables import (
    Dataset,
    DatasetCheck,
    DatasetState,
    DeletionRequest,
    Estimate,
    EstimateTarget,
    Job,
    Model,
    ModelVersion,
    VersionRegistration,
    WebhookDelivery,
    WebhookEndpoint,
)
from evidence import signed_notes
from tests import certified, factories
from tests.service.grouped import GROUPED
from worker.evidence import certificates, keeper

OF_DATASETS = (
    JobKind.INDEX_DATASET, JobKind.INDEX_STATE, JobKind.ERASE_ROWS, JobKind.CHECK_DATASET,
)  # fmt: skip
FAILURE = {"kind": "input", "reason": "the file is not there"}


def put(sessions: sessionmaker[Session], settings: WorkerSettings) -> None:
    """Store them, with a signed audit trail and a certificate."""
    story = certified.changed()
    dataset, model = story.rows[0], story.rows[1]
    read = factories.job(kind=JobKind.INDEX_DATASET, dataset_id=dataset.id, finished=True)
    dataset.definition, samples = GROUPED, factories.samples(dataset)
    samples[1].group_digest = factories.digest_of_group(NAMED["subjects"][0])
    _store(sessions, [*story.rows, read, *samples])
    _store(sessions, _registrations(dataset))
    _store(sessions, _jobs(dataset))
    _store(sessions, _requests(dataset, model))
    _store(sessions, _questions(dataset, model))
    _store(sessions, _webhooks())
    with sessions.begin() as session:
        trail.record(session, "worker", story.case.request.id, RequestCompleted())
        certificates.issue(
            session, story.case.request.id, story.case.log, certified.signer(),
            keyed=story.case.keyed, purges={},
        )  # fmt: skip
    key = signed_notes.NoteKey(
        certified.ORIGIN, certified.PRIVATE.public_key().public_bytes_raw(), certified.PRIVATE.sign
    )
    keeper.introduce(sessions, [key])
    size = keeper.due(sessions, settings) or 0
    while keeper.hash_events(sessions, upto=size):
        pass
    keeper.checkpoint(sessions, [key], certified.ORIGIN, size)


def _store(sessions: sessionmaker[Session], rows: list[Any]) -> None:
    with sessions.begin() as session:
        for row in rows:
            session.add(row)
            session.flush()


def _registrations(ready: factories.Dataset) -> list[Any]:
    rows: list[Any] = []
    for status in RegistrationStatus:
        dataset = factories.dataset(name=f"set-{status}", status=status)
        model = factories.model(ready, name=f"net-{status}", status=status)
        ended = _of(JobStatus.COMPLETED if status is RegistrationStatus.READY else JobStatus.QUEUED)
        if status is RegistrationStatus.FAILED:
            ended = _of(JobStatus.FAILED)
        deleted = status is RegistrationStatus.DELETED
        read, load = (
            (JobKind.PURGE, JobKind.PURGE)
            if deleted
            else (JobKind.INDEX_DATASET, JobKind.REGISTER_MODEL)
        )
        reading = factories.job(kind=read, dataset_id=dataset.id, **ended)
        loading = factories.job(kind=load, model_id=model.id, **ended)
        rows += [dataset, model, reading, loading]
        if status is RegistrationStatus.READY:
            rows.append(factories.version(model, loading, weights_sha256="a1" * 32))
    return rows


def _of(status: JobStatus) -> dict[str, Any]:
    """What a job in this status has."""
    ended = {"status": status, "started_at": factories.NOW, "finished_at": factories.NOW}
    return {
        JobStatus.QUEUED: {},
        JobStatus.RUNNING: {
            "status": status,
            "started_at": factories.NOW,
            "lease_until": factories.NOW + timedelta(days=1),
            "worker": "worker@somewhere",
        },
        JobStatus.FAILED: ended | {"failure": FAILURE},
    }.get(status, ended)


def _jobs(dataset: factories.Dataset) -> list[Any]:
    rows: list[Any] = []
    for kind in JobKind:
        for status in JobStatus:
            model = factories.model(dataset, name=f"of-{kind}-{status}".replace("_", "-"))
            ready = factories.job(kind=JobKind.REGISTER_MODEL, model_id=model.id, finished=True)
            base = factories.version(model, ready)
            of = {"model_id": model.id, "base_version_id": base.id}
            if kind in OF_DATASETS:
                of = {"dataset_id": dataset.id}
            job = factories.job(kind=kind, **of, **_of(status))
            rows += [
                model,
                ready,
                base,
                job,
                *_offered(job, model, dataset),
                factories.cycle(job, 1),
                factories.evaluation(job, "before"),
            ]
    return rows


def _offered(job: Job, model: factories.Model, dataset: factories.Dataset) -> list[Any]:
    """What a job is about that registers a version or a state, as it is while the job is so."""
    failed = job.status is JobStatus.FAILED
    common = {
        "job_id": job.id, "idempotency_key": str(job.id), "fingerprint": "f",
        "status": RegistrationStatus.FAILED if failed else RegistrationStatus.PENDING,
        "failure": "so it is" if failed else None,
    }  # fmt: skip
    if job.kind is JobKind.REGISTER_VERSION:
        trained_on = {"uri": "file:///data/ids.parquet", "column": "id"}
        return [
            VersionRegistration(
                model_id=model.id, weights_uri="file:///data/a.safetensors", trained_on=trained_on,
                accept_accuracy=False, accept_memory=False, **common,
            )
        ]  # fmt: skip
    if job.kind is JobKind.INDEX_STATE:
        uri = "file:///data/later.parquet"
        return [DatasetState(dataset_id=dataset.id, uri=uri, refuse_suppressed=False, **common)]
    return []


def _requests(dataset: factories.Dataset, model: factories.Model) -> list[Any]:
    rows: list[Any] = []
    for status in RequestStatus:
        request = factories.request(dataset, status=status, subject_ref="ticket", reason="asked")
        job = factories.job(model_id=model.id, finished=True)
        rows += [request, job, *factories.request_samples(request, "t1")]
        rows.append(factories.target(request, model, status=status, job_id=job.id,
                                     already_forgotten=0, not_trained_on=0))  # fmt: skip
    old = factories.job(model_id=model.id, finished=True)
    gone = {"status": VersionStatus.SUPERSEDED, "superseded_at": factories.NOW}
    rows += [old, factories.version(model, old, number=3, purged_at=factories.NOW, **gone)]
    return rows


def _questions(dataset: factories.Dataset, model: factories.Model) -> list[Any]:
    asked = factories.job(kind=JobKind.ESTIMATE, model_id=model.id, finished=True)
    estimate = Estimate(id=uuid7(), dataset_id=dataset.id, objective="untrain_samples",
                        exact=False, samples=1, duplicates=0)  # fmt: skip
    answer = EstimateTarget(estimate_id=estimate.id, model_id=model.id, job_id=asked.id,
                            already_forgotten=0, not_trained_on=1)  # fmt: skip
    checked = factories.job(kind=JobKind.CHECK_DATASET, dataset_id=dataset.id, finished=True)
    check = DatasetCheck(dataset_id=dataset.id, job_id=checked.id, uri="file:///data/x.parquet",
                         column="id", rows=3, suppressed=1, positions=[2])  # fmt: skip
    return [asked, estimate, answer, checked, check]


def _webhooks() -> list[Any]:
    rows: list[Any] = []
    for status in WebhookStatus:
        off = status is WebhookStatus.DISABLED
        hook = WebhookEndpoint(
            id=uuid7(),
            url=f"https://dsr.example.com/{status}",
            status=status,
            disabled_reason="it did not answer" if off else None,
            secret="whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0",
        )
        rows.append(hook)
        for delivery in DeliveryStatus:
            rows.append(
                WebhookDelivery(
                    endpoint_id=hook.id,
                    event="lethe.test",
                    body="{}",
                    status=delivery,
                    finished_at=None if delivery is DeliveryStatus.WAITING else factories.NOW,
                )
            )
    return rows


def files(sessions: sessionmaker[Session], store: Path) -> None:
    """A file for the weights of each version."""
    with sessions() as session:
        for digest in session.scalars(select(ModelVersion.weights_sha256)):
            path = path_of(store, digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(1000))


def real(session: Session) -> dict[str, dict[str, list[Any]]]:
    """What exists, by collection and by the names of the parameters of a path."""

    def rows(*columns: Any, **joined: Any) -> list[tuple[Any, ...]]:
        query = select(*columns)
        for on in joined.values():
            query = query.join(on)
        return [
            tuple(v if isinstance(v, int) else str(v) for v in row)
            for row in session.execute(query.order_by(*columns).limit(100))
        ]

    return {
        "deletion-requests": {
            "request_id": rows(DeletionRequest.id),
            "estimate_id": rows(Estimate.id),
        },
        "datasets": {
            "name": rows(Dataset.name),
            "name,check_id": rows(Dataset.name, DatasetCheck.id, to=DatasetCheck),
            "name,state_id": rows(Dataset.name, DatasetState.id, to=DatasetState),
        },
        "models": {
            "name": rows(Model.name),
            "name,number": rows(Model.name, ModelVersion.number, to=ModelVersion),
            "name,registration_id": rows(
                Model.name, VersionRegistration.id, to=VersionRegistration
            ),
        },
        "jobs": {"job_id": rows(Job.id)},
        "webhooks": {
            "webhook_id": rows(WebhookEndpoint.id),
            "webhook_id,delivery_id": rows(
                WebhookEndpoint.id, WebhookDelivery.id, to=WebhookDelivery
            ),
        },
    }


NAMED = {
    "model": "cnn",
    "dataset": "digits",
    "sample_ids": ["t1", "t2", "h0"],
    "subjects": ["ann@example.com"],
}
"""Members of bodies that name what exists."""
