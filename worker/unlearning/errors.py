"""What can go wrong while unlearning; anything else is a bug."""


class UnlearningError(Exception):
    """The job cannot be done with this model and these samples; retrying does not help."""


class NotFinite(UnlearningError):
    """A loss or a weight became NaN or infinite."""


class NothingStays(UnlearningError):
    """Every class would be removed; there is nothing to recover on."""
