"""The legal month, whatever the zone and the date."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain import due_dates
from domain.due_dates import month_later, offset_of, zone

OFFSETS = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timedelta(minutes=minutes))
INSTANTS = st.datetimes(datetime(2000, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def months_on(day: date, months: int) -> date:
    """The same date some months later, or the last of that month; one month at a time."""
    year, month = day.year, day.month
    for _ in range(months):
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)
    return date(year, month, min(day.day, monthrange(year, month)[1]))


@settings(max_examples=150, deadline=None)
@given(INSTANTS, OFFSETS.map(timezone), st.integers(1, 3))
def test_it_is_the_same_date_and_time_of_day_in_the_persons_offset(received, where, months):
    local = received.astimezone(where)

    due = month_later(received, zone(offset_of(local)), months=months)

    assert due.tzinfo is UTC
    assert due.astimezone(where).date() == months_on(local.date(), months)
    assert due.astimezone(where).time() == local.time()


@settings(max_examples=100, deadline=None)
@given(INSTANTS, st.sampled_from(sorted(due_dates.names())))
def test_it_is_the_same_date_in_every_time_zone_there_is(received, name):
    where = zone(name)
    local = received.astimezone(where)

    due = month_later(received, where).astimezone(where)

    # Early where the clocks go forward over midnight, or leave a day out (Samoa, 2011); never late.
    wanted = months_on(local.date(), 1)
    assert wanted - timedelta(days=1) <= due.date() <= wanted


@pytest.mark.parametrize(
    ("received", "name", "due"),
    [
        ("2026-10-31T00:30:00+01:00", None, "2026-11-30T00:30:00+01:00"),
        ("2026-01-31T12:00:00Z", None, "2026-02-28T12:00:00Z"),
        ("2028-01-31T12:00:00Z", None, "2028-02-29T12:00:00Z"),
        ("2026-12-31T23:59:59.999999-05:00", None, "2027-01-31T23:59:59.999999-05:00"),
        ("2026-03-15T12:00:00+01:00", "Europe/Berlin", "2026-04-15T12:00:00+02:00"),
        ("2026-03-15T12:00:00+01:00", None, "2026-04-15T12:00:00+01:00"),
        ("2026-10-15T10:00:00Z", "Europe/Berlin", "2026-11-15T12:00:00+01:00"),
        ("2026-10-31T23:30:00Z", "Pacific/Kiritimati", "2026-12-01T13:30:00+14:00"),
        # Skipped, and there twice: the earlier of the two.
        ("2027-02-28T02:30:00+01:00", "Europe/Berlin", "2027-03-28T01:30:00+01:00"),
        ("2026-09-25T02:30:00+02:00", "Europe/Berlin", "2026-10-25T02:30:00+02:00"),
    ],
)
def test_month_ends_and_changes_of_the_clock(received, name, due):
    at = datetime.fromisoformat(received)

    assert month_later(at, zone(name or offset_of(at))) == datetime.fromisoformat(due)


def test_an_extension_is_counted_from_the_receipt_and_not_from_the_shortened_month():
    received = datetime(2026, 1, 31, 12, tzinfo=UTC)

    assert month_later(received, UTC, months=3) == datetime(2026, 4, 30, 12, tzinfo=UTC)
    assert month_later(received, UTC, months=2) == datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "name",
    ["", "Europe", "Nowhere/Town", "../../etc/passwd", "/etc/localtime", "localtime", "Factory",
     "UTC+1", "+1:00", "+24:00", "+01:60", "+01:00\n", "Europe/Berlin\0", "\ud800", "x" * 9999],
)  # fmt: skip
def test_what_is_no_time_zone_is_refused(name):
    with pytest.raises(ValueError, match="Europe/Berlin"):
        zone(name)
