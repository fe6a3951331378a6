"""What a person's acceptance covers of a version that is made anew.

The version that was accepted had been overtaken: the model had forgotten other samples meanwhile.
"""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from domain.tables import Round, VerdictTest
from worker.unlearning.audit.verdict import Audit, Test


def covers(session: Session, accepted_job_id: UUID, found: Audit) -> bool:
    """Whether nothing fails now that did not fail in what the person accepted, and by no more.

    A test of the family may be as far from its expected value as the interval of the accepted one
    reaches. A guard's lower bound may be as high as the accepted value: what is surely worse is
    not covered, as a limit of the policy is only exceeded surely.

    Args:
        accepted_job_id: the job that made the accepted version.
        found: the audit of the one in its place.
    """
    shown = session.scalars(
        select(VerdictTest)
        .join(Round, (Round.job_id == VerdictTest.job_id) & (Round.number == VerdictTest.round))
        .where(Round.job_id == accepted_job_id, Round.kept, VerdictTest.moment != "before")
    )
    accepted = {(test.moment, test.name): test for test in shown if not test.passed}
    now = [("after", test) for test in found.tests] + [("guard", test) for test in found.guards]
    failed = [(moment, test) for moment, test in now if not test.passed]
    return bool(failed) and all(
        (before := accepted.get((moment, test.name))) is not None and _is_no_worse(test, before)
        for moment, test in failed
    )


def _is_no_worse(now: Test, accepted: VerdictTest) -> bool:
    if now.high is None:  # a guard
        return now.low is not None and now.low <= accepted.value
    expected = accepted.expected or 0.0
    reaches = (accepted.value, accepted.low, accepted.high)
    allowed = max(abs(each - expected) for each in reaches if each is not None)
    return abs(now.value - (now.expected or 0.0)) <= allowed
