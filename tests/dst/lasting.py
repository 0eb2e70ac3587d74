"""Lasting: faults that do not pass by themselves. A device is slow, hung or restless for a whole run.

    slow        its training takes 20 to 100 times the longest usual time
    slow link   a line of a few bytes a second, first in, first out, each way
    hung        its training answers after hours, or never
    dying       its training fails again and again
    frozen      SIGSTOP for minutes, then awake for a moment, again and again
    flapping    its training hangs, and every few seconds it has a new connection
    one part    the last part of its updates never leaves it

At most a third of the devices have a handicap, and never so many that the others can't make a round. In some schedules
the healing ends their handicaps; in the others liveness.py says what must hold in spite of them.

And what all devices have for a whole run, in a few schedules: lines of some hundred bytes a second, or a training that
takes longer than the deadline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from edgefl.settings import RoundSettings

HANDICAPS = ("slow", "slow link", "hung", "dying", "frozen", "flapping", "one part")
HOURS_S = (3600.0, 4 * 3600.0)
TRAINING_S = (1.0, 15.0)  # what a training takes usually
LONG_S, SHORT_DEADLINE_S = (25.0, 60.0), 20.0
LINES = (300.0, 2000.0)  # bytes a second
RATES = (60.0, 150.0)  # bytes a second: a model and an update take from half a minute to two
FROZEN_S, AWAKE_S = (60.0, 600.0), (5.0, 60.0)
FLAP_S = (2.0, 5.0)


@dataclass(frozen=True)
class Lasting:
    """`handicaps` is each handicapped device's; `heals`: they end when all other faults do."""

    handicaps: dict[str, str] = field(default_factory=dict)
    heals: bool = True
    factor: float = 1.0  # of a slow device's training, times the longest usual one
    rate: float = RATES[1]  # of a slow link
    line: float | None = None  # rate of all other devices' links
    usual_s: tuple[float, float] = TRAINING_S  # of a training

    @classmethod
    def draw(cls, rng: random.Random, devices: tuple[str, ...], config: RoundSettings) -> Lasting:
        line = rng.uniform(*LINES) if rng.random() < 0.15 else None
        if rng.random() < 0.4:
            return cls(line=line, usual_s=LONG_S if rng.random() < 0.25 else TRAINING_S)
        most = min(len(devices) // 3, len(devices) - config.min_reports)
        handicapped = rng.sample(devices, rng.randint(1, max(1, most)))
        return cls(
            {device: rng.choice(HANDICAPS) for device in handicapped},
            heals=rng.random() < 0.4, factor=rng.uniform(20, 100), rate=rng.uniform(*RATES),
            line=line,
        )  # fmt: skip

    @property
    def outlasts_deadline(self) -> bool:
        """Whether every training takes longer than the deadline."""
        return self.usual_s == LONG_S

    def rate_of(self, device: str) -> float | None:
        """Of the device's link."""
        return self.rate if self.handicaps.get(device) == "slow link" else self.line

    def training_s(self, handicap: str, seconds: float, rng: random.Random) -> float | None:
        """How long a training of so many seconds takes a device with this handicap; None: it never ends."""
        match handicap:
            case "slow":
                return self.usual_s[1] * self.factor
            case "hung":
                return rng.choice([None, rng.uniform(*HOURS_S)])
            case "flapping":
                return None
            case _:
                return seconds
