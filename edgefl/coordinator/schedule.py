"""Schedule: when the next round may open, as far as time decides. No I/O. Part of RoundCoordinator.

At least `interval_s` seconds pass between the openings of two rounds, and no round opens outside `window`. An open
round goes on to its end. Whether enough devices are there is decided in quorum.py.
"""

from __future__ import annotations

from typing import Literal

from ..machine import Note, WallClock
from ..settings import RoundSettings
from ..settings.hours import Hours, shown, zone_of

NO_TIME = (
    "this machine's clock is not synchronised: no round opens before it is, since [rounds] window is set; give it a "
    "time server, or set EDGEFL_TRUST_CLOCK=1 where its host keeps the clock"
)
LONG_WAIT_S = 120.0  # shorter waits are not announced: each message goes to every device


class Schedule:
    """`is_open`: a round may open now. `opens_at`: when that will be, on the machine's clock; None if it is not known
    yet. Both are as `look` has found them. After a start the first round need not wait for an interval.

    UsageError for a text that is no window, or names no time zone."""

    def __init__(self, config: RoundSettings, clock: WallClock) -> None:
        self._clock = clock
        self._opened_at: float | None = None  # of the newest round; the interval begins there
        self._configure(config)
        self._said = ""
        self._offset: float | None = None  # of the time of day at the last look
        self.is_open = True
        self.opens_at: float | None = None

    def _configure(self, config: RoundSettings) -> None:
        zone = zone_of("rounds.timezone", config.timezone)
        self._hours = None if config.window is None else Hours.parse("rounds.window", config.window, zone)
        self._window = f"{config.window} {config.timezone or 'local time'}"
        self._interval_s = config.interval_s or 0.0

    def reconfigure(self, config: RoundSettings) -> None:
        """Other settings: the next look decides anew."""
        self._configure(config)
        self._said, self.is_open, self.opens_at = "", False, None

    @property
    def _next_at(self) -> float:
        """When the interval ends."""
        return 0.0 if self._opened_at is None else self._opened_at + self._interval_s

    def opened(self, now: float) -> None:
        """A round opens."""
        self._opened_at = now
        self._said = ""
        self.is_open, self.opens_at = False, None

    def is_long(self, now: float) -> bool:
        """Whether a wait that has begun is worth a message to every device."""
        return not self.is_open and (self.opens_at is None or self.opens_at - now >= LONG_WAIT_S)

    def look(self, now: float) -> list[Note]:
        """Find out whether a round may open now; what to log about it, once a wait."""
        known = self._offset == self._clock.offset and self.opens_at is not None
        self._offset = self._clock.offset
        if known and not self.is_open and now < (self.opens_at or 0.0):
            return []
        if self._hours is None:
            self.is_open = now >= self._next_at
            self.opens_at = None if self.is_open else self._next_at
            return []
        return self._look_at_the_window(self._hours, now)

    def _look_at_the_window(self, hours: Hours, now: float) -> list[Note]:
        unix_s = self._clock.at(now)
        if unix_s is None:
            self.is_open, self.opens_at = False, None
            return self._say(NO_TIME, "warning")
        earliest = max(now, self._next_at)
        opens_at = now + hours.next(unix_s + earliest - now) - unix_s
        self.is_open = opens_at <= now
        self.opens_at = None if self.is_open else opens_at
        if opens_at <= earliest:  # the window is open, and the interval at most is not over
            return []
        moment = shown(unix_s + opens_at - now, hours.zone)
        return self._say(f"outside the window {self._window}: the next round opens at {moment}")

    def _say(self, text: str, level: Literal["info", "warning"] = "info") -> list[Note]:
        known, self._said = self._said, text
        return [] if text == known else [Note(level, text)]
