"""The events of the audit trail, from the classes that record them."""

from domain import events


def table() -> str:
    """A table: each event, whose id it bears, its fields, and what it means."""
    rows = ["| " + " | ".join(row) + " |" for row in events.described()]
    return "\n".join(["| event | about | data | |", "|---|---|---|---|", *rows])
