"""Lifts suppressions: samples that models have forgotten may be trained on again.

A tombstone says what a model has forgotten, and stays: certificates of the past stay true, and no
job of ours puts the sample back into a model that forgot it. A lift says that the sample may be
trained on again all the same, until a new deletion request names it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    exists,
    insert,
    select,
)
from sqlalchemy.orm import Session

from domain import sample_digests, tombstones, trail
from domain.errors import no_such
from domain.events import SuppressionLifted
from domain.tables import Dataset, LiftedSample, SuppressionLift
from domain.tombstones import Column
from domain.trail import Actor

ASKED_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Lifted:
    """What came of a wish to lift suppressions."""

    lift: SuppressionLift | None
    """None if there was nothing to lift."""

    already: list[str]
    """Ids whose suppression had been lifted before."""

    not_suppressed: list[str]
    """Ids that no model of the dataset has forgotten, or that nobody knows."""


def is_lifted(dataset_id: ColumnElement[UUID], digest: Column) -> ColumnElement[bool]:
    """Whether the sample with this digest may be trained on again."""
    return exists().where(LiftedSample.dataset_id == dataset_id, LiftedSample.digest == digest)


def lift(
    session: Session,
    dataset: str,
    ids: Iterable[str],
    *,
    reason: str,
    authorised_by: str,
    lifted_by: str,
    actor: Actor,
) -> Lifted:
    """Let samples be trained on again. What had been lifted before stays as it was.

    The audit trail is told of digests alone, all under the key of the dataset.

    Raises:
        NotFound: there is no such dataset.
    """
    # Locked: of two who lift the same at once, the later one finds it lifted.
    found = select(Dataset).filter_by(name=dataset).with_for_update(key_share=True)
    row = session.scalars(found).one_or_none()
    if row is None:
        raise no_such(f"dataset {dataset!r}", listed_at="/v1/datasets")
    to_lift: list[bytes] = []
    outcome = Lifted(None, [], [])
    rest = iter(ids)
    while some := list(islice(rest, ASKED_AT_ONCE)):
        states = {
            state.sample_id: state
            for state in session.execute(STATES, {"dataset_id": row.id, "ids": some})
        }
        for sample_id in some:
            state = states[sample_id]
            if not state.forgotten:
                outcome.not_suppressed.append(sample_id)
            elif state.lifted:
                outcome.already.append(sample_id)
            else:
                to_lift.append(state.digest)
    if not to_lift:
        return outcome
    lifted = SuppressionLift(
        dataset_id=row.id,
        samples=len(to_lift),
        reason=reason,
        authorised_by=authorised_by,
        lifted_by=lifted_by,
    )
    session.add(lifted)
    session.flush()
    rows = [{"dataset_id": row.id, "digest": each, "lift_id": lifted.id} for each in to_lift]
    session.execute(insert(LiftedSample), rows)
    event = SuppressionLifted(
        lift=lifted.id,
        samples=len(to_lift),
        digests_sha256=sha256(b"".join(sorted(to_lift))).hexdigest(),
        reason_hmac=sample_digests.digest(row.tombstone_key, reason).hex(),
        authorised_by_hmac=sample_digests.digest(row.tombstone_key, authorised_by).hex(),
        by=lifted_by,
    )
    trail.record(session, actor, row.id, event)
    return Lifted(lifted, outcome.already, outcome.not_suppressed)


def _states() -> Select[str, bytes, bool, bool]:
    dataset_id, each = tombstones.dataset_parameter(), tombstones.each_named()
    forgotten = tombstones.of_any_model(dataset_id, each.c.digest)
    return select(
        each.c.sample_id,
        each.c.digest,
        forgotten.label("forgotten"),
        is_lifted(dataset_id, each.c.digest).label("lifted"),
    )


STATES = _states()
"""Of each of `ids`: its digest in the dataset `dataset_id`, whether a model has forgotten it, and
whether its suppression was lifted."""
