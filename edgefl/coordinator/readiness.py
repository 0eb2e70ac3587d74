"""Readiness: whether the next round may open now, and what is said meanwhile. No I/O. Part of RoundCoordinator.

Time decides first (schedule.py), then whether enough devices are present (quorum.py); the log tells which are missing
(absence.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..machine import Note, WallClock
from ..settings import RoundSettings
from .absence import Absence
from .devices.presence import Presence
from .devices.quorum import Quorum
from .schedule import Schedule


@dataclass(frozen=True)
class Look:
    """What a look has found. `tell`: devices should know that no round is open; else they would train for the last one,
    or report to it again and again. `ask`: it is time to ask which devices are there."""

    may_open: bool = False
    notes: list[Note] = field(default_factory=list)
    tell: bool = False
    ask: bool = False


class Readiness:
    """`topic` is where devices announce themselves, `loss` what they train with."""

    def __init__(self, config: RoundSettings, presence: Presence, clock: WallClock, topic: str, *, loss: str) -> None:
        self.absence, self._presence = Absence(presence, topic, loss), presence
        self._only_new_data = config.only_new_data
        self._quorum = Quorum(config, presence)
        self._schedule = Schedule(config, clock)

    def reconfigure(self, config: RoundSettings) -> None:
        """Other settings. The interval goes on from the last round."""
        self._only_new_data = config.only_new_data
        self._quorum = Quorum(config, self._presence)
        self._schedule.reconfigure(config)

    @property
    def wake_at(self) -> float | None:
        """When a Tick is wanted, while no round is open."""
        if not self._schedule.is_open:
            return self._schedule.opens_at
        times = (self._quorum.wake_at, self.absence.wake_at)
        return min((at for at in times if at is not None), default=None)

    @property
    def opens_at(self) -> float | None:
        """When time allows the next round; None if it does already, or if that is not known."""
        return self._schedule.opens_at

    def needed(self, *, first: bool) -> int:
        """How many devices the next round waits for."""
        return self._quorum.needed(first=first)

    def look(self, now: float, *, first: bool) -> Look:
        """`first`: before the first round of all."""
        notes = self._schedule.look(now)
        if not self._schedule.is_open:
            return Look(notes=notes, tell=self._schedule.is_long(now))
        if self._quorum.is_reached(now, first=first):
            self.absence.over()
            return Look(True, notes)
        needed = self._quorum.needed(first=first)
        notes += self.absence.line(needed, now, until=self._quorum.go_ahead_at)
        # Devices whose update is in no model have new data still: they learn it from the message.
        return Look(notes=notes, tell=self._only_new_data, ask=self._quorum.ask_again(now))

    def opened(self, now: float) -> None:
        """A round opens."""
        self._schedule.opened(now)
