"""What a job resumes from after a lost attempt: the state of each round after its last cycle.

The file is written first, then its row, in the transaction that stores the cycle's scores.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from domain import trail
from domain.errors import StoreUnwritable
from domain.events import JobResumed
from domain.tables import AlignmentScore, JobCheckpoint
from worker.engine import environment
from worker.engine.workbench import Workbench
from worker.jobs.unlearn.champion import users_code
from worker.jobs.unlearn.inputs import Order
from worker.store.job_checkpoints import Folder
from worker.unlearning.unlearn import State

WEIGHT = "weights."
TENSORS = ("generator", "dropout", "device_dropout", "companions")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Point:
    """A point from which a round can resume."""

    path: Path
    cycle: int


def find(bench: Workbench, order: Order) -> dict[int, Point]:
    """The undamaged checkpoints of earlier attempts at the same order, by round."""
    folder, wanted = Folder(bench.store, order.job.id), fingerprint(bench, order)
    for attempt in bench.transaction():
        with attempt as session:
            rows = session.scalars(select(JobCheckpoint).filter_by(job_id=order.job.id)).all()
    found = {}
    for row in rows:
        path = folder.find(row.name, row.sha256)
        if path is not None and _order_of(path) == wanted:
            found[row.round] = Point(path, row.cycle)
        else:
            log.warning("checkpoint.unusable", round=row.round, cycle=row.cycle)
    return found


def begin(session: Session, order: Order, attempt: int, points: Mapping[int, Point]) -> None:
    """Delete the scores of cycles that will be repeated, and record where the job resumes."""
    mine = {"job_id": order.job.id}
    scores = delete(AlignmentScore).filter_by(**mine)
    for number, point in points.items():
        done = (AlignmentScore.round == number) & (AlignmentScore.cycle <= point.cycle)
        scores = scores.where(~done)
    session.execute(scores)
    rows = delete(JobCheckpoint).filter_by(**mine)
    session.execute(rows.where(JobCheckpoint.round.not_in(list(points))))
    if points:
        last = max(points)
        trail.record(
            session, "worker", order.job.id,
            JobResumed(attempt=attempt, round=last, cycle=points[last].cycle),
        )  # fmt: skip


def write(bench: Workbench, order: Order, number: int, state: State) -> JobCheckpoint | None:
    """Write the state of a round; return the row that names the file, to be stored with the scores.

    None when the store cannot be written: the job continues, and a later attempt would repeat the
    round.
    """
    name = f"round-{number}-cycle-{state.cycle}-attempt-{bench.claim.attempt}.safetensors"
    folder, of = Folder(bench.store, order.job.id), fingerprint(bench, order)
    try:
        digest = folder.put(name, lambda path: _save(state, of, path))
    except StoreUnwritable as error:
        log.warning("checkpoint.unwritable", reason=str(error))
        return None
    return JobCheckpoint(
        job_id=order.job.id,
        round=number,
        attempt=bench.claim.attempt,
        cycle=state.cycle,
        name=name,
        sha256=digest,
    )


def drop_older(bench: Workbench, number: int, latest: JobCheckpoint | None) -> None:
    """Delete all files of a round except the latest, once that one has its row."""
    if latest is not None:
        folder = Folder(bench.store, bench.claim.job_id)
        folder.drop(f"round-{number}-*", but=[latest.name])


def read(path: Path) -> State:
    """Read the state from a file that `write` wrote."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        numbers = json.loads(file.metadata()["state"])
    return State(
        cycle=numbers["cycle"],
        finished=numbers["finished"],
        shift=numbers["shift"],
        weights={
            name.removeprefix(WEIGHT): tensor
            for name, tensor in tensors.items()
            if name.startswith(WEIGHT)
        },
        generator=tensors["generator"],
        dropout=tensors["dropout"],
        device_dropout=tensors.get("device_dropout"),
        companions=tensors["companions"],
    )


def fingerprint(bench: Workbench, order: Order) -> str:
    """A digest of everything that determines a run: the champion, the samples, our code and the
    user's."""
    digest = hashlib.sha256()
    for part in (
        environment.code_sha256(),
        json.dumps(users_code(bench, order.model), sort_keys=True),
        order.champion.weights_sha256,
        order.champion.reservoir_sha256,
        *order.forget_ids,
        *sorted(order.outside),
    ):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def _save(state: State, of: str, path: Path) -> None:
    tensors = {
        WEIGHT + name: weight.detach().cpu().clone().contiguous()
        for name, weight in state.weights.items()
    }
    for name in TENSORS:
        if (tensor := getattr(state, name)) is not None:
            tensors[name] = tensor.contiguous()
    # As text, a float survives the round trip unchanged.
    numbers = {"cycle": state.cycle, "finished": state.finished, "shift": state.shift}
    save_file(tensors, path, metadata={"state": json.dumps(numbers), "order": of})


def _order_of(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            found: str | None = (file.metadata() or {}).get("order")
            return found
    except SafetensorError:
        return None
