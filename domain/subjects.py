"""Subjects: the identities of people, accounts and households, as data and requests write them.

A dataset's group column and a request name the same person; both go through `canonical`, and only
the keyed digest of what comes out is kept (`domain.sample_digests.digest` under the dataset's
`group_key`).
"""

import re
import unicodedata

LONGEST = 512
"""In characters, as sample ids."""

NOBODY = frozenset({"nan", "NaN", "NaT", "None", "null", "NULL", "<NA>"})
"""What a missing value becomes when programs write it as text: as one group it would make one
person of everybody whose identity is not known."""

JOINERS = "\u200c\u200d"
"""Invisible, but part of how Persian, Hindi and other languages are spelled."""

_THROUGH_A_FLOAT = re.compile(r"[+-]?[0-9]+\.0+|[+-]?[0-9]+(\.[0-9]+)?[eE]\+[0-9]+")
"""Such as 12.0 or 1e+16: a whole number that was once stored as a float, and is another text than
the 12 that a request would name."""


class NotASubject(ValueError):
    """A text that is no subject; the message says why and what to do, and does not repeat it."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        """What is wrong, in one or two words: `empty`, `too_long`, `invalid`, `missing_value` or
        `from_float`."""


def canonical(subject: str) -> str:
    """The one text that stands for a subject, so that data and requests have the same digest.

    Blanks at either end do not count, several within count as one space, and characters that
    Unicode can compose in several ways are composed in one (NFC). Everything else counts, letter
    case included, since there are account numbers that differ in nothing else. An integer is its
    decimal digits: 7 and "7" are one subject, "07" is another.

    Raises:
        NotASubject: it is none, or could be two.
    """
    if subject.isascii() and subject.isprintable() and " " not in subject:
        text = subject
    else:
        text = " ".join(unicodedata.normalize("NFC", subject).split())
    if not text:
        raise NotASubject("empty", "is empty; name somebody")
    if len(text) > LONGEST:
        raise NotASubject("too_long", f"has more than {LONGEST} characters; use a shorter identity")
    if not text.isascii() or not text.isprintable():
        _require_visible(text)
    if text in NOBODY:
        raise NotASubject(
            "missing_value",
            "is what programs write for a missing value; leave it out, or give an identity that "
            "is really spelled so a prefix",
        )
    if _THROUGH_A_FLOAT.fullmatch(text):
        raise NotASubject(
            "from_float",
            "is a whole number that was stored as a float; write it without a point or exponent, "
            "such as 12 for 12.0",
        )
    return text


def _require_visible(text: str) -> None:
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            raise NotASubject("invalid", "is not valid text; correct its encoding")
        if category in ("Cc", "Cf") and character not in JOINERS:
            raise NotASubject("invalid", "has an invisible character; write it without")
