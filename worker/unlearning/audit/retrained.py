"""The verdict on a retrained network: the guards decide, the family of tests is shown."""

from dataclasses import replace

from worker.unlearning.audit import guards
from worker.unlearning.audit.verdict import Audit


def by_construction(found: Audit) -> Audit:
    """The same audit of a network that was trained without the forget set.

    That is what forgetting means, whatever the tests say: they err, and groups and samples that are
    harder than the hold-out look like trained ones to any network. Held back for a test, a
    retrained network would leave the one in service that knows the samples. What a network must be
    worth to be served is another question; there the guards decide, as for every other.

    An audit without guards had no finite answers to judge, and stays as it is.
    """
    if not found.guards:
        return found
    failed = [guard for guard in found.guards if not guard.passed]
    if failed:
        reason = (
            f"{'; '.join(map(guards.in_words, failed))}. The model was retrained without the "
            "samples, so its utility alone is judged."
        )
    else:
        reason = (
            "Retrained without the samples: exact by construction. The tests are shown, they do "
            f"not decide. Of a changed model they would say: {found.reason}"
        )
    return replace(found, fails=bool(failed), has_power=True, reason=reason)
