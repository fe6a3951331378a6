"""Every accepted request is stored once and ends correctly."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import psycopg

from chaos.checker.violation import Violation
from chaos.promise import Promise, Sent

ENDS = ("completed", "needs_review", "cancelled")
"""The statuses in which a request may end. `failed` is not among them: no fault here excuses it."""

GONE = ("completed", "cancelled", "refused")
"""Final statuses: the ids that the request named are deleted."""

Rows = list[dict[str, Any]]


def violations(
    connection: psycopg.Connection[dict[str, Any]], promised: list[Promise]
) -> Iterator[Violation]:
    """What is wrong with requests and their targets."""
    requests = {
        row["id"]: row
        for row in connection.execute("SELECT id, status, finished_at FROM deletion_requests")
    }
    keys: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute("SELECT key, request_id FROM idempotency_keys"):
        keys[row["key"]].append(row["request_id"])
    named: dict[Any, set[str]] = defaultdict(set)
    for row in connection.execute("SELECT request_id, sample_id FROM request_samples"):
        named[row["request_id"]].add(row["sample_id"])
    targets: dict[Any, Rows] = defaultdict(list)
    for row in connection.execute(TARGETS):
        targets[row["request_id"]].append(row)
    for promise in promised:
        yield from of_client(promise)
        if promise.request_id is None:
            continue
        request = requests.get(promise.request_id)
        if request is None:
            yield Violation("request_lost", f"key {promise.key}: no row {promise.request_id}")
            continue
        yield from _of_request(promise, request, named[request["id"]], targets[request["id"]])
    yield from _doubled(requests, keys, promised)


TARGETS = """
    SELECT target.request_id, model.name AS model, target.status, target.job_id,
           job.status AS job_status, version.status AS version_status
    FROM deletion_targets target
    JOIN models model ON model.id = target.model_id
    LEFT JOIN jobs job ON job.id = target.job_id
    LEFT JOIN model_versions version ON version.job_id = target.job_id
"""


def of_client(sent: Sent) -> Iterator[Violation]:
    """What a client saw but should not have."""
    for complaint in sent.complaints:
        yield Violation("client_complains", f"key {sent.key}: {complaint}")
    if len(sent.answers) > 1:
        yield Violation("answers_differ", f"key {sent.key}: {len(sent.answers)} answers")


def _of_request(
    promise: Promise, request: dict[str, Any], named: set[str], targets: Rows
) -> Iterator[Violation]:
    where = f"request {request['id']}"
    if request["status"] in GONE:
        if named:
            yield Violation("samples_left", f"{where}: {len(named)} ids are stored beyond its end")
    elif named != promise.samples:
        yield Violation(
            "samples_differ", f"{where}: {len(named)} stored, {len(promise.samples)} sent"
        )
    for model in promise.models - {target["model"] for target in targets}:
        yield Violation("target_missing", f"{where}: nothing is asked of {model}")
    status = request["status"]
    if status == "failed":
        yield Violation("request_failed", where)
    elif status not in ENDS:
        yield Violation("request_open", f"{where} is {status}")
    elif status == "cancelled" and not promise.cancel_asked:
        yield Violation("request_cancelled", f"{where}: nobody asked for that")
    elif promise.cancelled and status != "cancelled":
        yield Violation("cancel_ignored", f"{where} is {status}")
    if (request["finished_at"] is not None) != (status in ("completed", "cancelled", "failed")):
        yield Violation("finished_at_wrong", f"{where} is {status}")
    if status in ENDS and status != _sum(targets):
        yield Violation(
            "sum_wrong", f"{where} is {status}, its targets {[t['status'] for t in targets]}"
        )
    for target in targets:
        yield from _of_target(where, target)


def _sum(targets: Rows) -> str:
    """The status of a request whose targets have ended."""
    found = {target["status"] for target in targets}
    ends = ("needs_review", "failed", "cancelled", "completed")
    return next((status for status in ends if status in found), "nothing")


def _of_target(where: str, target: dict[str, Any]) -> Iterator[Violation]:
    status = target["status"]
    what = f"{where} of {target['model']}"
    if status == "completed" and target["job_id"] is not None and target["job_status"] != status:
        yield Violation("job_not_completed", f"{what}: its job is {target['job_status']}")
    if status == "needs_review" and target["version_status"] != "candidate":
        yield Violation("candidate_missing", f"{what}: its version is {target['version_status']}")


def _doubled(
    requests: dict[Any, dict[str, Any]], keys: dict[str, list[Any]], promised: list[Promise]
) -> Iterator[Violation]:
    """One request per key, and no request that no client sent."""
    answered = Counter(request_id for ids in keys.values() for request_id in ids)
    for request_id in requests:
        if answered[request_id] != 1:
            yield Violation(
                "request_doubled", f"request {request_id} has {answered[request_id]} keys"
            )
    for promise in promised:
        stored = keys[promise.key]
        if promise.request_id is not None and stored != [promise.request_id]:
            yield Violation(
                "key_wrong", f"key {promise.key} stands for {stored}, not {promise.request_id}"
            )
    for key in keys.keys() - {promise.key for promise in promised}:
        yield Violation("key_unknown", f"nobody sent the key {key}")
