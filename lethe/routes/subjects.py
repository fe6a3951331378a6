"""The route of subjects, and how they are sent."""

from collections.abc import Sequence

from lethe.calls import Call
from lethe.errors import NotSent
from lethe.routes.building import post
from lethe.routing import route
from lethe.schemas.subjects import Lookup


class Subjects:
    """The people, accounts or households that samples belong to."""

    @route
    def lookup_subjects(
        self, subjects: Sequence[str | int], *, dataset: str | None = None
    ) -> Call[Lookup]:
        """What a deletion request for these subjects would touch. Changes nothing, and is told to
        the audit trail without them.

        Args:
            subjects: as the `group` column of datasets names them.
            dataset: the only one to look into; all that have groups unless given.
        """
        body = {"subjects": listed(subjects), "dataset": dataset}
        return post("/v1/subjects/lookup", Lookup, body, harmless=True)


def listed(subjects: Sequence[str | int]) -> list[str | int] | None:
    """As they are sent; None where there are none. Raises NotSent when it is one string."""
    if isinstance(subjects, str):
        raise NotSent("subjects is a list of subjects, not one string.")
    return list(subjects) or None
