"""Daily hours, such as 01:00-05:00 in Europe/Berlin: whether it is time, and when it will be. No clock is read here.

It is time whenever a clock on the wall, in that time zone, shows a time from the first to before the second. Hours may
cross midnight. When clocks go forward, hours within the hour that is left out do not come that day; when they go back,
the hour that comes twice counts twice.
"""

from __future__ import annotations

import re
from datetime import datetime, tzinfo

from msgspec import Struct

from ..errors import UsageError, nearest

MINUTE_S = 60
LONGEST_S = 3 * 86400  # hours come each day, but for the hour that is left out once a year
_TIME = r"([01]\d|2[0-3]):[0-5]\d"
_HOURS = re.compile(f"{_TIME}-({_TIME}|24:00)")


def zone_of(key: str, name: str | None) -> tzinfo | None:
    """The time zone `name`; None, for the machine's own, without a name. UsageError names the setting `key`."""
    if name is None:
        return None
    import zoneinfo  # here: with what it imports it takes 0.3 MB

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = nearest(name, zoneinfo.available_timezones())
        hint = (
            hint if hint.startswith("did") else "give a name such as Europe/Berlin, and install tzdata if it is known"
        )
        raise UsageError(f"{key} is {name!r}, which is no time zone here: {hint}") from None


class Hours(Struct, frozen=True):
    """From `begin` to before `end`, in minutes of the day; `zone` None is the machine's own time zone."""

    begin: int
    end: int
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, key: str, text: str, zone: tzinfo | None = None) -> Hours:
        """The hours that `text` means; UsageError names the setting `key`."""
        found = _HOURS.fullmatch(text)
        if found is None:
            raise UsageError(f'{key} is {text!r}: give two times, such as "01:00-05:00"')
        begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in text.split("-"))
        if begin == end:
            raise UsageError(f"{key} is {text!r}, which is no time at all: leave it out for the whole day")
        return cls(begin, end, zone)

    def includes(self, unix_s: float) -> bool:
        """Whether it is time at this moment."""
        local = datetime.fromtimestamp(unix_s, self.zone)
        minute = 60 * local.hour + local.minute
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end

    def next(self, unix_s: float) -> float:
        """The first moment, from this one on, at which it is time."""
        if self.includes(unix_s):
            return unix_s
        first = (unix_s // MINUTE_S + 1) * MINUTE_S  # time zones differ by whole minutes
        moments = (first + MINUTE_S * i for i in range(LONGEST_S // MINUTE_S))
        return next(moment for moment in moments if self.includes(moment))


def shown(unix_s: float, zone: tzinfo | None) -> str:
    """A moment as a clock in that time zone shows it, to the minute."""
    return datetime.fromtimestamp(unix_s, zone).astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")
