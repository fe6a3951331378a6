"""What is said in words of a version of which nothing but the head was fitted anew."""

from collections.abc import Mapping
from typing import Any

from domain.states import Verdict

OF_REFITTED = {
    Verdict.PASS: "Its head was fitted anew on the other samples alone. If the backbone never saw "
    "these samples, as was declared, that is what forgetting them means. This rests on the fit and "
    "on that declaration: the tests are shown beside it and do not decide.",
    Verdict.FAIL: "Its head was fitted anew without these samples, and it was held back all the "
    "same, for a person to decide: the tests say why.",
}
"""The same where nothing but the head was trained, on a backbone that stays."""

REFITTED = (
    "has a head that was fitted anew without these samples, on a backbone that stays as it is."
)
DECLARED = (
    "Whoever registered the model declared that this backbone was never trained on the dataset; "
    "this was not measured. The method's configuration names it, with the SHA-256 of its files. "
    "All tensors but the head's were found equal to it, bit for bit, at registration."
)
"""What is said of a backbone."""

NOT_PROVEN = (
    "That the backbone was never trained on the samples, or on copies of them: that is what "
    "whoever registered the model declared, and nothing measured it."
)


def of(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The backbone on which nothing but a head was fitted; None where the whole was trained."""
    found: Mapping[str, Any] | None = (result.get("method") or {}).get("config", {}).get("backbone")
    return found
