"""What can be done with subjects. One function, one transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from psycopg.types.json import Jsonb
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from uuid_utils.compat import uuid7

from domain import trail
from domain.errors import NoGroups, NotReady, TooManySamples, no_such
from domain.events import SubjectsLookedUp
from domain.states import DerivedKind, RegistrationStatus
from domain.tables import Dataset, ModelVersion, derived_data
from service import deletion
from service.deletion_requests import resolution
from service.deletion_requests.decisions import ADMIN
from service.deletion_requests.submission import in_one_line, rows_of
from service.dependencies import Sessions
from service.subjects.schemas import (
    DatasetLookedUp,
    HolderRead,
    LookupCreate,
    LookupRead,
    ModelLookedUp,
    SplitCounts,
)

log = structlog.get_logger()

OF_TRAINING = frozenset(
    {DerivedKind.WEIGHTS, DerivedKind.SOURCE_WEIGHTS, DerivedKind.OUT_OF_SAMPLE_PREDICTIONS}
)
"""What is made from training samples alone."""

# Subjects are digested once for each dataset, under its key.
DIGESTS = """
WITH each AS MATERIALIZED (
    SELECT d.id AS dataset_id, d.tombstone_key AS key, position,
           hmac_sha256(substr(group_key, 1, 64), substr(group_key, 65, 64), subject) AS digest
    FROM datasets d,
         jsonb_array_elements_text(%(subjects)s) WITH ORDINALITY AS s (subject, position)
    WHERE d.id = ANY (%(datasets)s)
)
"""
COUNTED = in_one_line(
    DIGESTS  # noqa: S608 (from these texts alone)
    + """
SELECT dataset_id, array_agg(DISTINCT each.position) AS positions,
       count(*) FILTER (WHERE split = 'train') AS train,
       count(*) FILTER (WHERE split = 'holdout') AS holdout,
       count(*) FILTER (WHERE split = 'test') AS test
FROM each JOIN (
    SELECT dataset_id, group_digest, split FROM samples
    UNION ALL SELECT dataset_id, group_digest, 'former' FROM former_samples
) AS samples USING (dataset_id) WHERE samples.group_digest = each.digest
GROUP BY dataset_id
"""
)
"""A row for each of the `datasets` that has samples of the `subjects`."""

FORGOTTEN = in_one_line(
    DIGESTS  # noqa: S608 (from these texts alone)
    + """
, found AS MATERIALIZED (
    SELECT dataset_id, split, since, removed_in,
           hmac_sha256(substr(key, 1, 64), substr(key, 65, 64), sample_id) AS digest
    FROM each JOIN (
        SELECT dataset_id, group_digest, sample_id, split, since, NULL AS removed_in FROM samples
        UNION ALL
        SELECT dataset_id, group_digest, sample_id, 'train', since, removed_in FROM former_samples
    ) AS samples USING (dataset_id) WHERE samples.group_digest = each.digest
)
SELECT m.dataset_id, m.id, m.name, m.status,
       count(DISTINCT found.digest) FILTER (WHERE t.job_id IS NOT NULL) AS forgotten,
       count(DISTINCT found.digest) FILTER (
           WHERE split = 'train' AND t.job_id IS NULL AND since <= m.state
             AND (removed_in IS NULL OR removed_in > m.state)) AS trained,
       count(DISTINCT found.digest) FILTER (WHERE t.job_id IS NULL AND removed_in IS NULL)
       AS others,
       array_agg(DISTINCT t.job_id) FILTER (WHERE t.job_id IS NOT NULL) AS jobs
FROM found JOIN models m USING (dataset_id) LEFT JOIN LATERAL (
    SELECT job_id FROM tombstones
    WHERE model_id = m.id AND tombstones.digest = found.digest LIMIT 1
) AS t ON true
GROUP BY m.id ORDER BY m.name
"""
)
"""A row for each model of those datasets: what of the samples it has forgotten, and by which jobs;
and how many are left, training samples and all."""


async def look_up(sessions: Sessions, wanted: LookupCreate, *, most: int) -> LookupRead:
    """What there is of the subjects. Nothing changes but the audit trail, which is told of it.

    Raises:
        TooManySamples: more subjects are named than one request may, or they have more samples.
        NotFound: there is no such dataset.
        NotReady: the dataset is not indexed yet.
        NoGroups: nobody knows whose the samples are, in the dataset that is named or in any.
    """
    if len(wanted.subjects) > most:
        raise TooManySamples(
            f"{len(wanted.subjects)} subjects are named, and {most} are allowed at once. Split "
            "them into several look-ups."
        )
    first = {subject: n for n, subject in reversed(list(enumerate(wanted.subjects)))}
    subjects = list(first)
    async with sessions.begin() as session:
        asked, others = await _datasets(session, wanted.dataset)
        connection = await session.connection()
        given = {"subjects": Jsonb(subjects), "datasets": [each.id for each in asked]}
        counted = {row.dataset_id: row for row in await rows_of(connection, COUNTED, **given)}
        _require_few(counted.values(), most)
        models = await _models(session, connection, given) if counted else {}
        lookup = uuid7()
        for dataset in asked:
            found = counted.get(dataset.id)
            event = SubjectsLookedUp(
                lookup=lookup,
                subjects=len(subjects),
                known=len(found.positions) if found else 0,
                samples=_samples(found) if found else 0,
                by=ADMIN,
            )
            trail.record(session, "api", dataset.id, event)
    known = {subjects[n - 1] for row in counted.values() for n in row.positions}
    unknown = sorted(first[subject] for subject in subjects if subject not in known)
    log.info("subjects.looked_up", lookup=str(lookup), subjects=len(subjects), known=len(known))
    return LookupRead(
        id=lookup,
        subjects=len(subjects),
        duplicates=len(wanted.subjects) - len(subjects),
        unknown_count=len(unknown),
        unknown_positions=unknown[: resolution.POSITIONS_SHOWN],
        datasets=[
            _read(dataset, counted[dataset.id], models.get(dataset.id, []))
            for dataset in asked
            if dataset.id in counted
        ],
        without=[dataset.name for dataset in asked if dataset.id not in counted],
        not_looked_into=others,
    )


async def _datasets(session: AsyncSession, name: str | None) -> tuple[list[Dataset], list[str]]:
    """Those to look into, and the names of those in which nobody can be looked up."""
    chosen = select(Dataset).order_by(Dataset.name)
    rows = (await session.scalars(chosen.filter_by(name=name) if name else chosen)).all()
    if name and not rows:
        raise no_such(f"dataset {name!r}", listed_at="/v1/datasets")
    if name:
        deletion.require_there(rows[0])
    rows = [row for row in rows if row.status is not RegistrationStatus.DELETED]
    grouped = [row for row in rows if _has_groups(row)]
    asked = [row for row in grouped if row.status is RegistrationStatus.READY]
    if asked:
        return asked, [row.name for row in rows if row not in asked]
    if grouped:
        raise NotReady(
            f"The dataset {grouped[0].name!r} is not indexed yet; wait until "
            f"`GET /v1/datasets/{grouped[0].name}` says `ready`."
        )
    if name:
        raise resolution.no_groups(name)
    raise NoGroups(
        "No dataset was registered with a `group` column, so nobody can be looked up. Register the "
        "dataset with `columns.group` naming the column that says whose a sample is."
    )


def _has_groups(dataset: Dataset) -> bool:
    declared = dataset.definition.get("columns", {}).get("group")
    return dataset.group_key is not None and declared is not None


def _require_few(counted: Iterable[Any], most: int) -> None:
    total = sum(_samples(row) for row in counted)
    if total > most:
        raise TooManySamples(
            f"The subjects have {total} samples, and {most} are looked up at once. Name fewer "
            "subjects, or one `dataset`."
        )


def _samples(counted: Any) -> int:
    number: int = counted.train + counted.holdout + counted.test
    return number


async def _models(
    session: AsyncSession, connection: AsyncConnection, given: Mapping[str, Any]
) -> dict[UUID, list[ModelLookedUp]]:
    """What the models of the datasets have of the samples, by dataset."""
    rows = await rows_of(connection, FORGOTTEN, **given)
    derived = await session.execute(
        select(derived_data, ModelVersion.status.label("status"))
        .outerjoin(ModelVersion, ModelVersion.id == derived_data.c.version_id)
        .where(
            derived_data.c.model_id.in_([row.id for row in rows]),
            derived_data.c.purged_at.is_(None),
        )
        .order_by(
            derived_data.c.version.desc().nulls_last(),
            derived_data.c.created_at,
            derived_data.c.kind.desc(),
        )
    )
    of_model: defaultdict[UUID, list[Any]] = defaultdict(list)
    for each in derived:
        of_model[each.model_id].append(each)
    read: defaultdict[UUID, list[ModelLookedUp]] = defaultdict(list)
    for row in rows:
        held_by = [HolderRead.model_validate(each) for each in _holding(row, of_model[row.id])]
        read[row.dataset_id].append(
            ModelLookedUp(
                model=row.name,
                status=row.status,
                already_forgotten=row.forgotten,
                left=row.trained,
                held_by=held_by,
            )
        )
    return read


def _holding(model: Any, derived: Sequence[Any]) -> list[Any]:
    """What of a model may hold samples that it has not forgotten, or that it has, but this not."""
    jobs = set(model.jobs or ())
    return [
        each
        for each in derived
        if jobs.intersection(each.tainted_by)
        or model.trained
        or (model.others and each.kind not in OF_TRAINING)
    ]


def _read(dataset: Dataset, counted: Any, models: list[ModelLookedUp]) -> DatasetLookedUp:
    return DatasetLookedUp(
        dataset=dataset.name,
        indexed_at=dataset.ready_at,
        subjects=len(counted.positions),
        samples=SplitCounts.model_validate(counted),
        models=models,
    )
