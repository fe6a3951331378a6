"""Near-duplicates: training samples that are nearly the same as others."""

from lethe.schemas.common import Result


class NearDuplicates(Result):
    """Training samples that are nearly the same as others, as found at registration."""

    used: bool
    """Whether they count as groups, as the policy says."""

    left_out: str | None
    training_samples: int
    samples: int
    groups: int
    largest: int
    groups_in_holdout: int
    holdout_samples: int
    sharing_stretches: int | None = None
    """Of `samples`, those that share stretches of stored values."""

    not_searched: int
    not_counted: int
    examples: list[list[int]]
    """Row numbers, not ids."""
