"""What deleted models and datasets have in common: their names stay taken, and nothing new comes.

Certificates and the audit trail name them; so another of the same name would be taken for them.
"""

from typing import Any

from sqlalchemy import ColumnElement, case, literal

from domain.errors import Deleted, NameTaken
from domain.states import JobKind, RegistrationStatus
from domain.tables import Dataset, Job, Model
from service.fields import Registered


def require_there(row: Model | Dataset) -> None:
    """Raise Deleted if it was."""
    if row.status is RegistrationStatus.DELETED:
        raise Deleted(
            f"{row.name!r} was deleted. What it had forgotten, certificates and the audit trail "
            "can still be read; for anything new register another one under another name."
        )


def require_free(row: Model | Dataset) -> None:
    """Raise NameTaken if the row was deleted, as its name is taken for good."""
    if row.status is RegistrationStatus.DELETED:
        raise NameTaken(
            f"{row.name!r} was deleted, and certificates name it, so the name stays taken. Choose "
            "another one."
        )


def kind_of_job(table: type[Model] | type[Dataset], otherwise: JobKind) -> ColumnElement[Any]:
    """The kind of the jobs to follow: those that purge what was deleted, or others."""
    kind = Job.kind.type
    return case(
        (table.status == RegistrationStatus.DELETED, literal(JobKind.PURGE, kind)),
        else_=literal(otherwise, kind),
    )


def is_open(read: Registered) -> bool:
    """Whether it is still being registered, or purged."""
    status: RegistrationStatus = read.status  # type: ignore[attr-defined]  # both have one
    if status is RegistrationStatus.DELETED:
        return read.purged_at is None
    return status is RegistrationStatus.PENDING
