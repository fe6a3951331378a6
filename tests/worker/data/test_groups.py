"""Samples of one person have one number, and whoever has no group has a number of their own."""

from domain import sample_digests
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
