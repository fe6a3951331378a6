"""What a certificate says of rows in the dataset's files is what the log says."""

from datetime import UTC, datetime

import pytest

from attacks.judge import judge, verify
from domain.states import RowsStatus
from evidence.wording import ROWS

AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
TIME = "2026-03-02T08:00:00.000000Z"
JOB = "01a22c80-0039-74f6-b735-737884381909"


def told(position, name, **data):
    return verify.Event(position, "", name, "a request", AT, {"job": JOB, **data})


FAILED = told(5, "request.rows_kept", why="failed")
HELD = told(6, "request.rows_kept", why="held", left=3)
ERASED = told(7, "request.rows_erased")


def said(status, left=None, at=TIME, meaning=None, positions=(4, 5, 6, 7)):
    words = meaning or ROWS[RowsStatus(status)]
    return {
        "log": {"positions": list(positions)},
        "rows": {"status": status, "left": left, "at": at, "meaning": words},
    }


@pytest.mark.parametrize(
    ("predicate", "events"),
    [
        (said("waiting", at=None), []),
        (said("failed"), [FAILED]),
        (said("held", 3), [FAILED, HELD]),
        (said("gone", 0), [FAILED, HELD, ERASED]),
        (said("failed", positions=[4, 5]), [FAILED, ERASED]),
        ({"log": {"positions": [4]}}, [FAILED]),
    ],
)
def test_what_the_log_says_is_believed_and_the_files_are_not_checked(predicate, events):
    out = verify.Report()

    verify.check_rows(predicate, events, out)

    assert bool(out.unchecked) == ("rows" in predicate)


@pytest.mark.parametrize(
    ("predicate", "events", "where"),
    [
        (said("gone", 0), [], "rows.status"),
        (said("gone", 0), [FAILED], "rows.status"),
        (said("gone", 0), [ERASED, told(9, "request.rows_kept", why="held")], None),
        (said("waiting", at=None), [FAILED], "rows.at"),
        (said("waiting"), [FAILED], "rows.status"),
        (said("held", 2), [HELD], "rows.left"),
        (said("held", None), [HELD], "rows.left"),
        (said("failed", at="2026-03-04T08:00:00.000000Z"), [FAILED], "rows.at"),
        (said("failed", meaning=ROWS[RowsStatus.GONE]), [FAILED], "rows.meaning"),
        (said("failed", meaning="All is well."), [FAILED], "rows.meaning"),
        (said("gone", 0, meaning="All is well."), [ERASED], "rows.meaning"),
        ({"log": {"positions": [4, 5]}}, [FAILED], "rows"),
    ],
)
def test_anything_else_is_refused(predicate, events, where):
    if where is None:  # the certificate is older than the last event
        verify.check_rows(predicate, events, verify.Report())
        return
    with pytest.raises(verify.Refusal, match=rf"^{where}:") as refused:
        verify.check_rows(predicate, events, verify.Report())
    assert refused.value.code is verify.Code.CONTENT


def test_a_bundle_with_rows_is_valid_and_one_without_as_before(evidence):
    waiting = said("waiting", at=None)["rows"]

    def wait(statement):
        statement["predicate"]["rows"] = waiting

    assert judge(evidence.main)[0] == 0
    assert judge(evidence.reissued(evidence.main, wait))[0] == 0
