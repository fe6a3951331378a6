"""What a certificate says of the subjects that a request named."""

import pytest

from attacks.judge import verify
from evidence import subjects
from evidence.statement import instant
from evidence.subjects import LookedUp
from tests import factories
from tests.evidence.test_wording import FORBIDDEN


@pytest.mark.parametrize(("named", "unknown"), [(1, 0), (1, 1), (3, 1), (3, 3)])
def test_of_subjects_no_more_is_said_than_was_looked_up(named, unknown):
    found = LookedUp(
        named=named, unknown=unknown, samples=named - unknown, dataset="gait",
        indexed_at=instant(factories.NOW), at=factories.NOW,
    )  # fmt: skip

    said = subjects.statement(found)
    answer = subjects.meaning(named=named, unknown=unknown, dataset="gait")

    assert ("No data was found" in said) == (unknown > 0) == (answer is not None)
    assert (subjects.NOT_NEVER in subjects.not_proven(found)) == (unknown > 0)
    assert "gait" in said
    assert "\n" not in said
    for words in (said, answer or ""):
        assert not FORBIDDEN.search(words)
        assert not verify.SUCCESS.search(words)
