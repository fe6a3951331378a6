"""Samples were forgotten once, and the served versions respect it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from chaos.checker.violation import Violation
from chaos.promise import Offer, Promise

Rows = list[dict[str, Any]]
Connection = psycopg.Connection[dict[str, Any]]

OPEN_JOBS = ("queued", "running")

REGISTER = ("register_model", "register_version")
"""Kinds of jobs that make a version whatever there is to forget."""

OFFERED = ("register_version", "index_state")
"""Kinds of jobs that may fail: `offers` says when."""

COMPLETED = """
    SELECT answer.key, target.job_id, target.model_id
    FROM deletion_targets target
    JOIN idempotency_keys answer USING (request_id)
    WHERE target.status = 'completed'
"""


def violations(
    connection: Connection,
    promised: Iterable[Promise],
    tombstones: Rows,
    offered: Iterable[Offer] = (),
) -> Iterator[Violation]:
    """What is wrong with jobs, tombstones and versions."""
    promised = list(promised)
    jobs = connection.execute("SELECT * FROM jobs").fetchall()
    versions = connection.execute("SELECT * FROM model_versions ORDER BY number").fetchall()
    samples = {promise.key: promise.samples for promise in promised}
    completed = connection.execute(COMPLETED).fetchall()
    asked = {
        (row["job_id"], row["model_id"], sample_id)
        for row in completed
        for sample_id in samples.get(row["key"], ())
    }
    by_job: dict[UUID, Rows] = defaultdict(list)
    for version in versions:
        by_job[version["job_id"]].append(version)
    yield from _of_jobs(jobs)
    yield from _of_tombstones(
        asked, tombstones, _left_out(connection, promised, offered, tombstones)
    )
    yield from _one_for_each_job(jobs, by_job, tombstones)
    yield from _of_models(connection, versions, by_job, tombstones, _replaced(jobs, by_job))
    yield from _of_measurements(connection, versions)
    yield from _of_purges(versions)


def _of_jobs(jobs: Rows) -> Iterator[Violation]:
    for job in jobs:
        if job["status"] in OPEN_JOBS:
            yield Violation("job_open", f"job {job['id']} is {job['status']}")
        elif job["status"] == "failed" and job["kind"] not in OFFERED:
            yield Violation("job_failed", f"job {job['id']}: {job['failure']}")


def _left_out(
    connection: Connection, promised: list[Promise], offered: Iterable[Offer], tombstones: Rows
) -> set[tuple[UUID, str]]:
    """By job that registered a version: samples that this was trained without, and may have been.
    They were named to this model, or another one had forgotten them."""
    jobs = {
        row["id"]: row["job_id"]
        for row in connection.execute("SELECT id, job_id FROM version_registrations")
    }
    offers = {
        jobs[offer.registration_id]: offer for offer in offered if offer.registration_id in jobs
    }
    named: dict[str, set[str]] = defaultdict(set)
    for promise in promised:
        for model in promise.models:
            named[model].update(promise.samples)
    holders: dict[tuple[UUID, str], set[UUID]] = defaultdict(set)
    for row in tombstones:
        holders[row["dataset_id"], row["sample_id"]].add(row["model_id"])
    return {
        (row["job_id"], row["sample_id"])
        for row in tombstones
        if (offer := offers.get(row["job_id"])) is not None
        and row["sample_id"] not in offer.ids
        and (
            row["sample_id"] in named[offer.of]
            or len(holders[row["dataset_id"], row["sample_id"]]) > 1
        )
    }


def _of_tombstones(
    asked: set[tuple[UUID, UUID, str]], tombstones: Rows, left_out: set[tuple[UUID, str]]
) -> Iterator[Violation]:
    """Every sample named to a completed target has one tombstone, and no other sample has any, but
    those that a version from elsewhere was trained without."""
    count = Counter((row["model_id"], row["sample_id"]) for row in tombstones)
    for (model_id, sample_id), times in count.items():
        if times > 1:
            yield Violation("sample_doubled", f"{sample_id} of model {model_id}: {times} times")
    missing = Counter(
        (job_id, model_id)
        for job_id, model_id, sample_id in asked
        if not count[model_id, sample_id]
    )
    for (job_id, model_id), samples in missing.items():
        yield Violation("tombstone_missing", f"{samples} samples of model {model_id}, job {job_id}")
    for row in tombstones:
        is_asked = (row["job_id"], row["model_id"], row["sample_id"]) in asked
        if not is_asked and (row["job_id"], row["sample_id"]) not in left_out:
            yield Violation(
                "tombstone_unasked", f"{row['sample_id']} of {row['model_id']}, {row['job_id']}"
            )


def _one_for_each_job(
    jobs: Rows, by_job: dict[UUID, Rows], tombstones: Rows
) -> Iterator[Violation]:
    """Each completed job with something to forget made one version; no other job made any."""
    forgot = Counter(row["job_id"] for row in tombstones if row["split"] == "train")
    for job in jobs:
        made = by_job[job["id"]]
        where = f"job {job['id']} ({job['kind']}, {job['status']}, {job['verdict']})"
        if len(made) > 1:
            yield Violation("version_doubled", f"{where} made {len(made)} versions")
        must = job["kind"] in REGISTER or job["verdict"] or forgot[job["id"]]
        if job["status"] == "completed" and must and not made:
            yield Violation("version_missing", f"{where} forgot {forgot[job['id']]} samples")
        if made and (job["status"] != "completed" or not must):
            yield Violation("version_unasked", where)


def _replaced(jobs: Rows, by_job: dict[UUID, Rows]) -> dict[UUID, UUID | None]:
    """By version that was trained elsewhere, as its job says: the version that it replaced. It has
    no parent, and its number is above 1."""
    return {
        version["id"]: job["base_version_id"]
        for job in jobs
        if job["kind"] == "register_version" and job["status"] == "completed"
        for version in by_job[job["id"]]
        if version["parent_id"] is None and version["number"] > 1
    }


def _of_models(
    connection: Connection,
    versions: Rows,
    by_job: dict[UUID, Rows],
    tombstones: Rows,
    replaced: dict[UUID, UUID | None],
) -> Iterator[Violation]:
    of_model: dict[UUID, Rows] = defaultdict(list)
    for version in versions:
        of_model[version["model_id"]].append(version)
    honoured: dict[UUID, set[UUID]] = defaultdict(set)
    for row in tombstones:
        honoured[row["model_id"]].update(version["id"] for version in by_job[row["job_id"]])
    for model in connection.execute("SELECT id FROM models WHERE status = 'ready'").fetchall():
        mine = of_model[model["id"]]
        yield from _of_model(model["id"], mine, honoured[model["id"]], replaced)


def _of_model(
    model_id: UUID, versions: Rows, honoured: set[UUID], replaced: dict[UUID, UUID | None]
) -> Iterator[Violation]:
    """Each model has one champion, descended from version 1 through all versions that forgot. One
    that was trained elsewhere goes back to the version that it replaced."""
    where = f"model {model_id}"
    numbers = [version["number"] for version in versions]
    if numbers != list(range(1, len(versions) + 1)):
        yield Violation("numbers_wrong", f"{where}: {numbers}")
    champions = [version for version in versions if version["status"] == "champion"]
    if len(champions) != 1:
        yield Violation("champions_wrong", f"{where} has {len(champions)} champions")
        return
    known = {version["id"]: version for version in versions}
    line: Rows = []
    version: dict[str, Any] | None = champions[0]
    while version is not None and version not in line:
        line.append(version)
        parent = version["parent_id"] or replaced.get(version["id"])
        version = known.get(parent)
        if parent is not None and version is None:
            yield Violation("ancestry_broken", f"{where}: no version {parent} among its own")
    if line[-1]["number"] != 1:
        yield Violation("ancestry_broken", f"{where} goes back to version {line[-1]['number']}")
    for ancestor in line[1:]:
        if ancestor["status"] != "superseded":
            yield Violation("ancestor_not_superseded", f"{where}, version {ancestor['number']}")
    for forgotten in honoured - {ancestor["id"] for ancestor in line}:
        yield Violation(
            "champion_regressed",
            f"{where}: version {known[forgotten]['number']} forgot what the champion knows",
        )


def _of_purges(versions: Rows) -> Iterator[Violation]:
    """Files are deleted when the grace period is over, and not before."""
    now = datetime.now(UTC)
    for version in versions:
        due, purged = version["purge_after"], version["purged_at"]
        where = f"version {version['number']} of model {version['model_id']}"
        if version["status"] == "superseded" and purged is None and due < now:
            yield Violation("purge_overdue", f"{where} since {due}")
        if purged is not None and purged < due:
            yield Violation("purged_early", f"{where}: {purged}, due {due}")


def _of_measurements(connection: Connection, versions: Rows) -> Iterator[Violation]:
    """A version made by a job has one kept round and both evaluations; all cycles of each round are
    present, later ones from the same or later attempts."""
    kept = {
        row["job_id"]: row["kept"]
        for row in connection.execute(
            "SELECT job_id, count(*) FILTER (WHERE kept) AS kept FROM rounds GROUP BY job_id"
        )
    }
    moments: dict[UUID, set[str]] = defaultdict(set)
    for row in connection.execute("SELECT job_id, moment FROM evaluations"):
        moments[row["job_id"]].add(row["moment"])
    for version in versions:
        job_id = version["job_id"]
        if version["parent_id"] is None:
            continue
        if kept.get(job_id) != 1:
            yield Violation("round_not_kept", f"job {job_id} kept {kept.get(job_id)} rounds")
        if moments[job_id] != {"before", "after"}:
            yield Violation("evaluation_missing", f"job {job_id} has {sorted(moments[job_id])}")
    cycles: dict[tuple[UUID, int], Rows] = defaultdict(list)
    for row in connection.execute(
        "SELECT job_id, round, cycle, attempt FROM alignment_scores ORDER BY cycle"
    ):
        cycles[row["job_id"], row["round"]].append(row)
    for (job_id, number), rows in cycles.items():
        attempts = [row["attempt"] for row in rows]
        found = [row["cycle"] for row in rows]
        if found != list(range(1, len(rows) + 1)) or attempts != sorted(attempts):
            yield Violation(
                "cycles_wrong", f"job {job_id}, round {number}: {found}, attempts {attempts}"
            )
