"""Exact mode for a head on a frozen backbone: the head fitted anew on the features that stay.

Neither the dataset nor the head before is looked at, so a hundred jobs, one after another, give the
same bits as one that is asked for everything at once.
"""

from typing import Any

from sqlalchemy import select

from domain.errors import JobError
from domain.sample_digests import digester
from domain.tables import Tombstone
from worker.data import head_features
from worker.data.head_features import Features
from worker.engine.workbench import Workbench
from worker.jobs import frozen_head
from worker.jobs.unlearn.inputs import Order
from worker.unlearning.alignment import Moments
from worker.unlearning.network import Network
from worker.unlearning.softmax_regression import BLOCK, TOLERANCE

REMARK = (
    "nothing but the head was fitted anew: that the backbone never saw the samples is what whoever "
    "registered the model declared"
)


def refit(bench: Workbench, order: Order, champion: Network) -> tuple[Network, Moments]:
    """The champion with a head that the remaining samples give.

    Returns:
        The network, and the moments of the features of all samples that its head was fitted on.

    Raises:
        JobError: the features of a sample to forget are not there, or the fit does not converge.
    """
    features = remaining(bench, order)
    fit = frozen_head.fitted(order.model, champion, features)
    return frozen_head.with_head(champion, fit), features.moments()


def remaining(bench: Workbench, order: Order) -> Features:
    """The features of all samples that stay: neither to be forgotten now, nor forgotten before.

    Raises:
        JobError: the champion has no file of them, or it lacks a sample that is to be forgotten.
    """
    sha256 = order.champion.features_sha256
    if sha256 is None:
        raise _no_features(order)
    digest_of = digester(order.dataset.tombstone_key)
    leaving = {digest_of(sample_id.encode()) for sample_id in order.forget_ids}
    for attempt in bench.transaction():
        with attempt as session:
            buried = set(
                session.scalars(select(Tombstone.digest).filter_by(model_id=order.model.id))
            )
    features = head_features.read(bench.store, sha256, without=leaving | buried)
    if features.left_out < len(leaving):
        raise JobError(
            f"The features of version {order.champion.number} lack samples that it was fitted on, "
            "so they are not those of its training samples. Register the model again under another "
            "name."
        )
    return features


def config(order: Order) -> dict[str, Any]:
    """What the head is fitted with, and on which backbone.

    Raises:
        JobError: the champion was not registered with one.
    """
    found = order.champion.figures.get(frozen_head.NAME)
    if found is None:
        raise _no_features(order)
    return {
        "recipe": order.model.recipe,
        "l2": found["refit"]["l2"],
        "tolerance": TOLERANCE,
        "samples_in_a_block": BLOCK,
        "backbone": {
            name: found[name] for name in ("source", "sha256", "tensors", "trained_on_dataset")
        },
    }


def _no_features(order: Order) -> JobError:
    return JobError(
        f"Version {order.champion.number} has no file of what enters its head, so the head cannot "
        "be fitted anew. Register the model again under another name, with its `backbone`."
    )
