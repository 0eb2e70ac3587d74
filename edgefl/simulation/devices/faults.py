"""Faults of simulated devices, by a spec such as `dropout:0.1,slow:0.05:100`: KIND:P[:SIZE], KINDS has them all.

For dropout and straggler, P is a probability, drawn in each round anew. The others last for the whole run and have the
share P of the devices, drawn once from the seed. `attack:KIND:P[:SIZE]` is an attack (attacks.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from ...core.seeds import derived_seed
from ...errors import UsageError, nearest
from . import attacks
from .attacks import Attack

DAY_S, HOUR_S = 86_400.0, 3_600.0


class Kind(NamedTuple):
    """What a kind does, with the size that it has unless a spec says otherwise."""

    size: float
    text: str


KINDS = {
    "dropout": Kind(60.0, "lose power while training, for so many seconds"),
    "straggler": Kind(10.0, "take so many times as long for a round's training"),
    "slow": Kind(30.0, "take so many times as long for every training"),
    "link": Kind(64.0, "have a link of so many kbit/s each way"),
    "hung": Kind(24.0, "take so many hours longer for every training"),
    "away": Kind(12.0, "are without power for so many hours of each day, from an hour of their own"),
}
LASTING = tuple(kind for kind in KINDS if kind not in ("dropout", "straggler"))
HELP = (
    "KIND:P[:SIZE], separated by commas; in memory only. With probability P, devices in a round: "
    + "; ".join(f"{kind} (SIZE {KINDS[kind].size:g}) {KINDS[kind].text}" for kind in KINDS if kind not in LASTING)
    + ". For the whole run, the share P of the devices: "
    + "; ".join(f"{kind} (SIZE {KINDS[kind].size:g}) {KINDS[kind].text}" for kind in LASTING)
    + f"; {attacks.HELP}."
)


@dataclass(frozen=True)
class Handicap:
    """What one device has for the whole run. `away_from`: the second of each day at which it leaves."""

    factor: float = 1.0
    hung_s: float = 0.0
    bytes_per_s: float | None = None  # of its link, each way
    away_from: float = 0.0
    away_s: float = 0.0

    def away_until(self, now: float) -> float:
        """When the device is back, if it is away at `now`; else `now`."""
        since = (now - self.away_from) % DAY_S
        return now + self.away_s - since if since < self.away_s else now

    def leaves_at(self, now: float) -> float:
        """When the device leaves next."""
        return now + (self.away_from - now) % DAY_S


NO_HANDICAP = Handicap()


@dataclass(frozen=True)
class Faults:
    """Each kind's (probability or share, size), and the attack if there is one."""

    kinds: dict[str, tuple[float, float]] = field(default_factory=dict)
    attack: Attack | None = None

    @classmethod
    def parse(cls, spec: str) -> Faults:
        """Read a spec; UsageError says what is off."""
        found: dict[str, tuple[float, float]] = {}
        attack = None
        for item in filter(None, spec.split(",")):
            kind, *numbers = item.split(":")
            if kind == "attack":
                if attack is not None:
                    raise UsageError(f"fault {item!r}: a run has one attack: leave out the other")
                attack = Attack.parse(item)
                continue
            if kind not in KINDS:
                raise UsageError(f"unknown fault {kind!r}: {nearest(kind, [*KINDS, 'attack'])}")
            try:
                probability, size, *rest = [float(n) for n in numbers] + [KINDS[kind].size]
            except ValueError:
                raise UsageError(
                    f"fault {item!r} wants numbers: write {kind}:0.1 or {kind}:0.1:{KINDS[kind].size:g}"
                ) from None
            if not 0 <= probability <= 1 or not 0 < size < float("inf") or len(rest) > 1:
                raise UsageError(f"fault {item!r}: a probability or share from 0 to 1, then one positive number")
            found[kind] = (probability, size)
        return cls(found, attack)

    @property
    def slow_links(self) -> bool:
        """Whether a link may have a rate."""
        return "link" in self.kinds

    def _of(self, kind: str) -> tuple[float, float]:
        return self.kinds.get(kind, (0.0, KINDS[kind].size))

    def drops_after(self, rng: random.Random, duration_s: float) -> tuple[float, float] | None:
        """(seconds until power is lost, seconds without power) within a training of `duration_s`, or None."""
        probability, away_s = self._of("dropout")
        return (rng.uniform(0, duration_s), away_s) if rng.random() < probability else None

    def slowdown(self, rng: random.Random) -> float:
        """How many times as long a training takes."""
        probability, factor = self._of("straggler")
        return factor if rng.random() < probability else 1.0

    def handicaps(self, devices: list[str], seed: int) -> dict[str, Handicap]:
        """The devices with a handicap for the whole run. Each kind has the share of the devices that the spec says."""
        drawn = {}
        for kind in LASTING:
            rng = random.Random(derived_seed(seed, "fault", kind))
            drawn[kind] = frozenset(rng.sample(devices, round(self._of(kind)[0] * len(devices))))
        size = {kind: self._of(kind)[1] for kind in LASTING}
        handicapped = frozenset().union(*drawn.values())
        return {
            device: Handicap(
                factor=size["slow"] if device in drawn["slow"] else 1.0,
                hung_s=size["hung"] * HOUR_S if device in drawn["hung"] else 0.0,
                bytes_per_s=size["link"] * 1000 / 8 if device in drawn["link"] else None,
                away_from=random.Random(derived_seed(seed, "away", device)).uniform(0, DAY_S),
                away_s=min(size["away"] * HOUR_S, DAY_S) if device in drawn["away"] else 0.0,
            )
            for device in sorted(handicapped)
        }
