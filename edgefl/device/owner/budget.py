"""Budget: what a device may send and receive today, and when: its owner's limits. Part of DeviceSession; no I/O.

    today's limit   `per_day`, or what is left of `per_month` divided by the days that are left of the month
    spent           the bytes of all MQTT packets, in both directions; TCP and TLS come on top
    allowed by now  limit * (elapsed + HEAD) / (whole + HEAD): the limit is spent evenly over the day

Both times are in minutes, and count only what is within the owner's hours. They begin at local midnight, or when the
device first knows the time on that day. A device takes part in a round if its model and an update fit into what is
allowed by now; the rest is what the update may take. Nothing is let in for as long as the time of day is not known
(hosting/wall_clock.py).

What is stored is a ceiling, which is raised before it is reached. So it is seldom written, which SD cards need, and
after a power cut the device counts at least what it has spent.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, tzinfo

from msgspec import Struct
from msgspec.structs import replace

from ...machine import WallClock
from ...protocol.trouble import Trouble
from ...settings.hours import MINUTE_S, Hours, shown

DAY = 1440  # minutes
HEAD = 60  # what so many minutes bring of the day's limit may be spent at once
STEPS = 64  # the stored ceiling rises by this part of the day's limit, and a device writes no more often in a day
PACKET_BYTES = 16  # of an MQTT packet beside topic and payload, and its acknowledgement
RESERVE_BYTES = 2048  # of the limit, kept for control messages on their way; and all that a new connection brings


class Limits(Struct, frozen=True):
    """The owner's: bytes in a day and in a month, and the hours in which to take part; None: no limit. Days and hours
    are those of `zone`, None: the device's own time zone."""

    per_day: int | None = None
    per_month: int | None = None
    hours: Hours | None = None
    zone: tzinfo | None = None

    @property
    def of_bytes(self) -> bool:
        return self.per_day is not None or self.per_month is not None

    @property
    def any(self) -> bool:
        return self.of_bytes or self.hours is not None


class Spent(Struct, frozen=True):
    """What lies on disk: the newest day (its ordinal, 0: none), the bytes spent on it and in its month, at most; and
    when, in Unix seconds, the day began for this device."""

    day: int = 0
    since: int = 0
    today: int = 0
    this_month: int = 0


class Refusal(Struct, frozen=True):
    """Why the device sits out, and when it can take part again, in Unix seconds; None: when the clock is right."""

    why: Trouble
    until: float | None


class Budget:
    """`spent` is what was stored. `connection_bytes` is what a new connection brings; the session keeps it."""

    def __init__(self, limits: Limits | None, spent: Spent | None, clock: WallClock) -> None:
        self.limits = limits or Limits()
        self.connection_bytes = 0
        self._spent = self._stored = spent or Spent()
        self._later = Spent()  # the day from which the clock went back last
        self._clock = clock
        self._undated = 0  # bytes that were spent before the time of day was known

    @property
    def today(self) -> int:
        """Bytes spent today."""
        return self._spent.today

    @property
    def limit(self) -> int:
        """Of today, in bytes."""
        limits, spent = self.limits, self._spent
        found = [] if limits.per_day is None else [limits.per_day]
        if limits.per_month is not None:
            day = date.fromordinal(max(1, spent.day))
            left = (_next_month(day) - day).days
            found.append(max(0, limits.per_month - (spent.this_month - spent.today)) // left)
        return min(found)

    @property
    def is_spent(self) -> bool:
        """Whether even control messages have to stay away until tomorrow."""
        return self.limits.of_bytes and self.today + self._reserve >= self.limit

    @property
    def _reserve(self) -> int:
        return RESERVE_BYTES + self.connection_bytes

    def count(self, num_bytes: int) -> None:
        """So many bytes are spent."""
        spent = self._spent
        self._spent = replace(spent, today=spent.today + num_bytes, this_month=spent.this_month + num_bytes)
        if self._clock.offset is None:
            self._undated += num_bytes

    def to_store(self) -> Spent | None:
        """The ceiling to make durable before anything else is spent; None if the one on disk is high enough."""
        spent, stored = self._spent, self._stored
        if not self.limits.of_bytes or (spent.day == stored.day and spent.today <= stored.today):
            return None
        step = max(1, self.limit // STEPS)
        ahead = step - spent.today % step
        self._stored = replace(spent, today=spent.today + ahead, this_month=spent.this_month + ahead)
        return self._stored

    def settle(self) -> Spent:
        """What is spent, to be made durable at an orderly end."""
        self._stored = self._spent
        return self._spent

    def look(self, now: float) -> None:
        """Begin a new day if there is one. A clock that goes back to an earlier day takes nothing back."""
        unix_s = self._clock.at(now)
        if unix_s is None or not self.limits.of_bytes:
            return
        undated, self._undated = self._undated, 0
        today = datetime.fromtimestamp(unix_s, self.limits.zone).date()
        spent, day = self._spent, today.toordinal()
        if day == spent.day:
            return
        if day < spent.day:
            self._later, self._spent = spent, replace(spent, day=day)
            return
        known = self._later if day == self._later.day else Spent(since=round(unix_s))
        last = date.fromordinal(max(1, spent.day))
        same = (last.year, last.month) == (today.year, today.month)
        this_month = spent.this_month if same else known.this_month + undated
        self._spent = Spent(day, known.since, known.today + undated, this_month)

    def closed(self, now: float) -> Refusal | None:
        """Why the device takes no part now, if it is outside the owner's hours."""
        hours, unix_s = self.limits.hours, self._clock.at(now)
        if hours is None or unix_s is None or hours.includes(unix_s):
            return None
        until = hours.next(unix_s)
        return Refusal(Trouble("hours", f"its owner lets it take part from {self._shown(until)}"), until)

    def refusal(self, need: int, now: float) -> Refusal | None:
        """Why the device can't take part in a round that takes `need` bytes at least; None if it can."""
        if not self.limits.any:
            return None
        unix_s = self._clock.at(now)
        if unix_s is None:
            return Refusal(
                Trouble("clock", "its clock is not synchronised, and its owner's limits need the time"), None
            )
        self.look(now)
        if (closed := self.closed(now)) is not None:
            return closed
        if not self.limits.of_bytes or need <= self._allowed(unix_s):
            return None
        more = need + self.connection_bytes  # rounds that are announced meanwhile take some
        until = self._affords_at(more if self.affords(more) else need, unix_s)
        text = f"its owner's byte budget lets it take part again at {self._shown(until)}"
        if need + self._reserve > self.limit:
            text = f"a round takes {need} bytes, its owner's byte budget allows {self.limit} a day: raise it"
        return Refusal(Trouble("budget", text), until)

    def allowed(self, now: float) -> int:
        """Bytes that may be spent now; 0 without limits or if the time is not known."""
        unix_s = self._clock.at(now)
        return 0 if unix_s is None or not self.limits.of_bytes else max(0, self._allowed(unix_s))

    def affords(self, num_bytes: int) -> bool:
        """Whether so many bytes still fit into the day, for what has been begun."""
        return not self.limits.of_bytes or self.today + num_bytes + self._reserve <= self.limit

    def _allowed(self, unix_s: float, later: int = 0) -> int:
        """What may be spent `later` minutes from then, if nothing is until then."""
        begin, minute = self._minute(self._spent.since), min(DAY, self._minute(unix_s) + later)
        elapsed, whole = self._open(begin, minute), self._open(begin, DAY)
        by_now = int(self.limit * min(1.0, (elapsed + HEAD) / (whole + HEAD)))
        return by_now - self.today - self._reserve

    def _affords_at(self, need: int, unix_s: float) -> float:
        """When so many bytes are allowed; tomorrow, if not today."""
        left = DAY - self._minute(unix_s)
        low, high = 0, left
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._allowed(unix_s, middle) >= need else (middle + 1, high)
        moment = (unix_s // MINUTE_S + low) * MINUTE_S if low < left else self._midnight(unix_s)
        return moment if self.limits.hours is None else self.limits.hours.next(moment)

    def _midnight(self, unix_s: float) -> float:
        """The end of the day."""
        tomorrow = datetime.fromtimestamp(unix_s, self.limits.zone).date() + timedelta(days=1)
        return datetime.combine(tomorrow, time(), self.limits.zone).timestamp()

    def _minute(self, unix_s: float) -> int:
        """Of the local day."""
        local = datetime.fromtimestamp(unix_s, self.limits.zone)
        return 60 * local.hour + local.minute

    def _open(self, begin: int, end: int) -> int:
        """How many minutes between these two of a day are within the owner's hours."""
        hours = self.limits.hours
        if hours is None:
            return max(0, end - begin)
        spans = [(hours.begin, hours.end)] if hours.begin < hours.end else [(0, hours.end), (hours.begin, DAY)]
        return sum(max(0, min(end, b) - max(begin, a)) for a, b in spans)

    def _shown(self, unix_s: float) -> str:
        return shown(unix_s, self.limits.zone)


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
