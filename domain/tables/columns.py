"""What every table is made of: the base class, and how Python types become columns."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    DateTime,
    Enum,
    MetaData,
    String,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from domain.policy import Escalation
from domain.states import (
    Decision,
    DeliveryFailure,
    DeliveryStatus,
    JobKind,
    JobStatus,
    Mode,
    Objective,
    RegistrationStatus,
    RequestStatus,
    RowsStatus,
    Split,
    Verdict,
    VersionStatus,
    WebhookStatus,
)


def _enum(kind: type[StrEnum], name: str) -> Enum:
    """A text column that a CHECK holds to the values of `kind`."""
    return Enum(
        kind,
        native_enum=False,
        length=24,
        create_constraint=True,
        name=name,
        values_callable=values,
    )


def values(kind: type[StrEnum]) -> list[str]:
    """What such a column may hold."""
    return [member.value for member in kind]


class Base(DeclarativeBase):
    """What all tables share: how constraints are named, and which columns hold which types."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[int]: JSONB(none_as_null=True),
        list[str]: ARRAY(String),
        str: String,
        RegistrationStatus: _enum(RegistrationStatus, "status"),
        RequestStatus: _enum(RequestStatus, "status"),
        RowsStatus: _enum(RowsStatus, "rows_status"),
        JobStatus: _enum(JobStatus, "status"),
        JobKind: _enum(JobKind, "kind"),
        VersionStatus: _enum(VersionStatus, "status"),
        Objective: _enum(Objective, "objective"),
        Split: _enum(Split, "split"),
        Mode: _enum(Mode, "mode"),
        Verdict: _enum(Verdict, "verdict"),
        Escalation: _enum(Escalation, "step"),
        Decision: _enum(Decision, "decision"),
        WebhookStatus: _enum(WebhookStatus, "status"),
        DeliveryStatus: _enum(DeliveryStatus, "status"),
        DeliveryFailure: _enum(DeliveryFailure, "failure"),
    }
