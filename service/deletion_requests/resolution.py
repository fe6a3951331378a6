"""Which samples are meant by what a demand names: ids as they are, and subjects by their digests.

A subject is looked up and forgotten again: what stays of it are counts, and a leaf of the request's
commitment that nobody can read without the subject and the request's key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import DomainError, NoGroups, NotReady, TooManySamples, UnknownSubjects
from domain.trail import instant
from evidence import commitments
from evidence import subjects as wording
from service.deletion_requests import submission
from service.deletion_requests.demands import DeletionRequestCreate, OfUnknown
from service.deletion_requests.schemas import ResolvedRead

TRIES = 5
"""How often subjects are looked up before the caller is told that the index keeps changing."""

CHANGING = (
    "The dataset's index changed each time while its subjects were looked up. Send the request "
    "again in a few seconds, with the same `Idempotency-Key`."
)
POSITIONS_SHOWN = 100

# The digests are made as `domain.sample_digests.digest` makes them.
LOOK = """
WITH asked AS (
    SELECT d.id, d.name, d.group_key AS key, d.ready_at,
           d.group_key IS NOT NULL AND d.definition #>> '{{columns,group}}' IS NOT NULL AS has
    FROM datasets d LEFT JOIN models m ON m.dataset_id = d.id WHERE {asked_for} LIMIT 1
), each AS MATERIALIZED (
    SELECT position, hmac_sha256(substr(key, 1, 64), substr(key, 65, 64), subject) AS digest
    FROM asked, jsonb_array_elements_text(%(subjects)s) WITH ORDINALITY AS s (subject, position)
    WHERE has
)
SELECT asked.name, asked.ready_at, asked.has, each.position, each.digest, samples.sample_id
FROM asked LEFT JOIN each ON true
LEFT JOIN (
    SELECT dataset_id, sample_id, group_digest FROM samples
    UNION ALL SELECT dataset_id, sample_id, group_digest FROM former_samples
) AS samples ON samples.dataset_id = asked.id AND samples.group_digest = each.digest
ORDER BY each.position LIMIT %(most)s
"""
BY_MODEL = submission.in_one_line(LOOK.format(asked_for=submission.BY_MODEL))
BY_DATASET = submission.in_one_line(LOOK.format(asked_for=submission.BY_DATASET))


@dataclass(frozen=True, slots=True)
class Named:
    """What a demand names, each once."""

    ids: list[str]
    subjects: dict[str, int]
    """In their canonical form, each with its first position in the list that was sent."""

    duplicates: int
    """How many ids and subjects were repetitions."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the index has of the subjects that a demand names."""

    dataset: str | None = None
    indexed_at: datetime | None = None
    digests: Sequence[bytes] = ()
    samples: Sequence[str] = ()
    """The ids found by subjects, each once."""

    unknown: frozenset[str] = frozenset()
    refusal: DomainError | None = None
    """Why the demand cannot be met; then nothing else is said here."""

    leaves: Sequence[str] = ()
    """What the request commits to beside sample ids; see `evidence.commitments.of_subject`."""


def named(wanted: DeletionRequestCreate, most: int) -> Named:
    """What is named, each once. Raises TooManySamples when more is named than may be."""
    ids, subjects = wanted.sample_ids or [], wanted.subjects or []
    for what, number in (("ids", len(ids)), ("subjects", len(subjects))):
        if number > most:
            raise TooManySamples(
                f"The request names {number} {what}, and {most} are allowed at once. Split it into "
                "several requests."
            )
    first: dict[str, int] = {}
    for position, subject in enumerate(subjects):
        first.setdefault(subject, position)
    different = list(dict.fromkeys(ids))
    repeated = len(ids) - len(different) + len(subjects) - len(first)
    return Named(different, first, repeated)


def all_ids(names: Named, found: Found) -> list[str]:
    """The samples that are asked for, each once, however often and in whatever way it is named."""
    return list(dict.fromkeys([*names.ids, *found.samples]))


async def look(
    connection: AsyncConnection, wanted: DeletionRequestCreate, names: Named, most: int
) -> Found:
    """Look all subjects up in one statement; without any, nothing is asked.

    Args:
        most: samples that one request may name.
    """
    if not names.subjects:
        return Found()
    rows = await submission.rows_of(
        connection,
        BY_MODEL if wanted.model else BY_DATASET,
        name=wanted.model or wanted.dataset,
        subjects=Jsonb(list(names.subjects)),
        most=most + len(names.subjects) + 1,
    )
    if not rows:
        # There is no such model or dataset, as `operations.must_forget` says; unless there is now.
        return Found(refusal=NotReady(CHANGING))
    if not rows[0].has:
        return Found(refusal=no_groups(rows[0].name))
    return _judged(rows, wanted, names, most)


def _judged(rows: Sequence[Any], wanted: DeletionRequestCreate, names: Named, most: int) -> Found:
    subjects = list(names.subjects)
    samples = dict.fromkeys(row.sample_id for row in rows if row.sample_id is not None)
    if len({*names.ids, *samples}) > most or len(rows) > most + len(subjects):
        return Found(refusal=_too_many(len(subjects), most))
    of = {subjects[row.position - 1]: row for row in rows}
    unknown = frozenset(subject for subject, row in of.items() if row.sample_id is None)
    if unknown and wanted.unknown_subjects is OfUnknown.REFUSE:
        return Found(refusal=_unknown(rows[0].name, unknown, names))
    return Found(
        dataset=rows[0].name,
        indexed_at=rows[0].ready_at,
        digests=[row.digest for row in of.values()],
        samples=list(samples),
        unknown=unknown,
        leaves=[
            commitments.of_subject(subject, is_known=subject not in unknown) for subject in subjects
        ],
    )


def held_to(found: Found) -> dict[str, Any]:
    """What `submission` compares with the index as it is when the request is stored."""
    return {
        "may": found.refusal is None,
        "digests": list(found.digests),
        "found": Jsonb(list(found.samples)),
    }


def told(names: Named, found: Found) -> dict[str, Any]:
    """What the audit trail is told of subjects, which is nothing where none was named."""
    if not names.subjects:
        return {}
    return {
        **counts(names, found),
        "dataset": found.dataset,
        "indexed_at": None if found.indexed_at is None else instant(found.indexed_at),
    }


def counts(names: Named, found: Found) -> dict[str, int]:
    """What is stored of subjects."""
    return {
        "subjects": len(names.subjects),
        "unknown_subjects": len(found.unknown),
        "subject_samples": len(found.samples),
    }


def read(stored: Mapping[str, Any], *, models: int) -> ResolvedRead | None:
    """What was found by the subjects of a request; None where none was named."""
    if not stored["subjects"]:
        return None
    samples, unknown = stored["subject_samples"], stored["unknown_subjects"]
    return ResolvedRead(
        samples=samples,
        datasets=1 if samples else 0,
        models=models,
        unknown_subjects=unknown,
        meaning=wording.meaning(
            unknown=unknown, named=stored["subjects"], dataset=stored["dataset"]
        ),
    )


def no_groups(dataset: str) -> NoGroups:
    """The refusal to look subjects up where nobody can."""
    return NoGroups(
        f"The dataset {dataset!r} was registered without a `group` column, so nobody knows which "
        "of its samples are a subject's. Name `sample_ids`, or register the dataset with "
        "`columns.group` naming the column that says whose a sample is."
    )


def _unknown(dataset: str, unknown: frozenset[str], names: Named) -> UnknownSubjects:
    positions = sorted(names.subjects[subject] for subject in unknown)
    return UnknownSubjects(
        f"{len(unknown)} of {len(names.subjects)} subjects have no sample in the dataset "
        f"{dataset!r}, so nothing was stored. Correct or remove them; `unknown_positions` lists "
        "where the first of them stand in `subjects`, counted from 0. If they are spelled as in "
        'the data, send `"unknown_subjects": "answer"`: then it is certified that nothing of them '
        "was found.",
        unknown_count=len(unknown),
        unknown_positions=positions[:POSITIONS_SHOWN],
    )


def _too_many(subjects: int, most: int) -> TooManySamples:
    what_to_do = (
        "Name fewer subjects in each request."
        if subjects > 1
        else "Have LETHE_MAX_SAMPLES_PER_REQUEST raised, or name a part of the samples by their "
        "ids in each of several requests."
    )
    return TooManySamples(
        f"More than {most} samples are named, by subjects or by ids, and no more are allowed at "
        f"once. {what_to_do}"
    )
