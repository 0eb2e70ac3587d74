"""Body: what one simulated device is like. Its host (fleet.py) asks how long things take."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...device.events import Pause
from ..clock import VirtualClock
from .battery import HYSTERESIS, Battery
from .energy import Appetite, Meter, Range
from .hours import ALWAYS, Presence
from .line import Line

NOTHING = Range(0.0, 0.0)
NO_APPETITE = Appetite(NOTHING, NOTHING, NOTHING)
ALWAYS_THERE = Presence(ALWAYS, 0.0, 0)


@dataclass(frozen=True)
class Body:
    """Without arguments, a device of a fleet without a world. `up` and `down` are bytes a second; None: messages pass
    at once. `dropout` is the probability that a training ends in a loss of power, and the seconds that lasts."""

    seconds_per_example: float | None = None
    up: float | None = None
    down: float | None = None
    latency_s: float | None = None
    presence: Presence = ALWAYS_THERE
    dropout: tuple[float, float] = (0.0, 60.0)
    appetite: Appetite = NO_APPETITE
    battery: Battery | None = None

    def lines(self) -> tuple[Line, Line] | None:
        """The link, up and down, as it is after a start; None: all messages pass at once."""
        return None if self.up is None and self.down is None else (Line(self.up), Line(self.down))

    def drops_after(self, rng: random.Random, duration_s: float) -> tuple[float, float] | None:
        """(seconds until power is lost, seconds without power) within a training of `duration_s`, or None."""
        probability, away_s = self.dropout
        if not probability or rng.random() >= probability:
            return None
        return rng.uniform(0, duration_s), away_s


PLAIN = Body()


class Powered(Protocol):
    """What a battery needs of its device's host."""

    clock: VirtualClock
    powered: bool

    def feed(self, event: Pause) -> None: ...
    def lose_power(self, away_s: float) -> None: ...


class Power:
    """What a device spends, and what its battery makes of that: below its reserve it pauses, empty it loses power."""

    def __init__(self, host: Powered, body: Body, meter: Meter | None) -> None:
        self._host, self._body, self._meter = host, body, meter
        self._training_since: float | None = None
        self._paused = False
        self._look = 0  # the number of the newest look that is due

    def begin(self) -> None:
        """Training begins."""
        self._training_since = self._host.clock.now

    def end(self) -> None:
        """It has ended, however it did; `look` once its result is told."""
        if self._training_since is not None:
            seconds, self._training_since = self._host.clock.now - self._training_since, None
            self.spend(seconds=seconds)

    def spend(self, *, seconds: float = 0.0, up: int = 0, down: int = 0) -> None:
        """So much was trained, sent and received."""
        if self._meter is None:
            return
        joules = self._body.appetite.of(seconds, up, down)
        self._meter.add(joules)
        if self._body.battery is not None:
            self._body.battery.spend(joules.middle, self._host.clock.now)

    def start(self) -> None:
        """The device is on: a session that has just begun knows of no pause."""
        self._paused = False
        self.look()

    def look(self) -> None:
        """Look at the battery, and when it will matter next."""
        battery, host = self._body.battery, self._host
        if battery is None or not host.powered:
            return
        now, reserve = host.clock.now, battery.cell.reserve
        share = battery.share(now)
        if share <= 1e-6:
            back_at = battery.reaches(reserve + HYSTERESIS, now)
            host.lose_power(min(back_at - now, 1e12))
            return
        wanted = share < reserve + HYSTERESIS if self._paused else share < reserve
        if wanted != self._paused:
            self._paused = wanted
            host.feed(Pause("its battery is low" if wanted else "", "power" if wanted else ""))
        self._look_at(min(battery.reaches(level, now) for level in self._levels(reserve)))

    def _levels(self, reserve: float) -> tuple[float, ...]:
        return (0.0, reserve + HYSTERESIS) if self._paused else (reserve,)

    def _look_at(self, at: float) -> None:
        self._look += 1
        number = self._look
        if not math.isinf(at):
            later: Callable[[], None] = lambda: self.look() if number == self._look else None  # noqa: E731
            self._host.clock.at(at + 1.0, later)
