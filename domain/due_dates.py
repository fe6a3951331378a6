"""When a request is due: the rule of the legal month, in one place. Pure.

GDPR Article 12(3) gives one month. Regulation 1182/71, Article 3, says how it is counted: it ends
with the last hour of the day that has the same date as the day of receipt, or of the month's last
day where there is no such date. Which day it is, the requester's time zone decides.

A request is due on that day, at the time of day at which it was received. That is never later than
the law: the day has hours left, and where the last day is a Sunday or a holiday, the law gives the
next working day, which nobody needs to know to be on time.
"""

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

MONTHS = 1

AHEAD = timedelta(minutes=5)
"""How far the clock of whoever sends a request may be ahead of ours."""

NO_PLACE = frozenset({"Factory", "localtime", "posixrules", "leapseconds"})
"""Names that stand in the directory of time zones, and are none."""

OFFSET = re.compile(r"([+-])([01]\d|2[0-3]):([0-5]\d)")


@cache
def names() -> frozenset[str]:
    """Every time zone of the IANA database."""
    return frozenset(available_timezones()) - NO_PLACE


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name, or by its offset from UTC, as in `+01:00`.

    Raises:
        ValueError: there is none of this name.
    """
    if found := OFFSET.fullmatch(name):
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        return timezone(-offset if found[1] == "-" else offset)
    if name not in names():
        raise ValueError("must be a name of the IANA database, such as `Europe/Berlin`")
    return ZoneInfo(name)


def offset_of(instant: datetime) -> str:
    """The offset of an aware time, as `zone` takes it; one that has seconds loses them."""
    minutes = int((instant.utcoffset() or timedelta()).total_seconds() // 60)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


def month_later(received: datetime, where: tzinfo, *, months: int = MONTHS) -> datetime:
    """The same date and time of day some months later, in a time zone; in UTC.

    Always counted from the receipt itself: of 31 January, one month later is the last day of
    February, and three months later 30 April. A time of day that the zone skips or repeats on that
    day is taken early.
    """
    local = received.astimezone(where)
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    there = local.replace(year=year, month=month + 1, day=day)
    return min(there.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
