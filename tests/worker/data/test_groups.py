"""Samples of one person have one number, and whoever has no group has a number of their own."""

from domain import sample_digests
from domain.tables import NearDuplicate
from tests import factories
from worker.data import groups


def test_samples_of_a_group_have_one_number_and_all_others_their_own(session):
    dataset = factories.dataset()
    other = factories.dataset(name="other")
    model = factories.model(dataset)
    samples = factories.samples(dataset, train=6)
    for sample, of in zip(samples, ("ann", "ben", "ann", None, None, "ann"), strict=False):
        sample.group_digest = of and sample_digests.digest(dataset.group_key, of)
    elsewhere = factories.samples(other, train=2)
    for sample in elsewhere:
        sample.group_digest = samples[0].group_digest
    session.add_all([dataset, other, *samples, *elsewhere, model])
    session.flush()

    codes = groups.codes(session, model, ["t5", "t0", "t1", "t3", "t4", "nobody", "h0"]).tolist()

    assert codes[0] == codes[1]
    assert len({*codes[1:]}) == 6


def test_near_duplicates_group_those_who_have_no_group_where_the_policy_says_so(session):
    dataset = factories.dataset()
    models = [
        factories.model(dataset, name=f"by-{group}", policy={"group": group} if group else {})
        for group in ("near_duplicates", "column", None)
    ]
    samples = factories.samples(dataset, train=6)
    for sample, of in zip(samples, ("ann", "ben", None, None, None, None), strict=False):
        sample.group_digest = of and sample_digests.digest(dataset.group_key, of)
    session.add_all([dataset, *samples, *models])
    session.flush()
    for model in models:
        for name, number in {"t0": 1, "t1": 1, "t2": 1, "t3": 1, "t4": 2, "h0": 2}.items():
            session.add(NearDuplicate(model_id=model.id, sample_id=name, group_number=number))
    session.flush()

    asked = ["t0", "t1", "t2", "t3", "t4", "t5", "h0"]
    found = [groups.codes(session, model, asked).tolist() for model in models]

    assert found[0] == [0, 1, 2, 2, 3, 4, 3]  # ann and ben stay apart, whatever looks alike
    assert found[1] == found[2] == [0, 1, 2, 3, 4, 5, 6]


def test_who_is_in_part_has_others_in_training_that_stay(session):
    """In the column, by near-duplicates, and neither for the two who are already forgotten."""
    dataset = factories.dataset()
    models = [
        factories.model(dataset, name=f"by-{group}", policy={"group": group})
        for group in ("near_duplicates", "column")
    ]
    by = factories.job()
    samples = factories.samples(dataset, train=10)
    names = ("ann", "ann", "ben", "ben", "cid", "cid", None, None, None, None)
    for sample, of in zip(samples, names, strict=False):
        sample.group_digest = of and sample_digests.digest(dataset.group_key, of)
    session.add_all([dataset, *samples, *models, by])
    session.flush()
    for model in models:
        session.add_all(factories.tombstones(model, by, "t3", "t9"))
        for name, number in {"t0": 1, "t6": 1, "t7": 1, "t8": 2, "t9": 2, "h0": 2}.items():
            session.add(NearDuplicate(model_id=model.id, sample_id=name, group_number=number))
    session.flush()

    asked = ["t0", "t2", "t4", "t6", "t8", "h0"]
    found = [
        groups.in_part(session, model, asked, leaving={*asked, "t5"}).tolist() for model in models
    ]

    assert found[0] == [True, False, False, True, False, False]
    assert found[1] == [True, False, False, False, False, False]
