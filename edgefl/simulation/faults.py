"""Faults of simulated devices, by a spec such as `dropout:0.1,straggler:0.05:8`.

dropout:P[:S]    with probability P a device loses power while training, and is back after S seconds (60)
straggler:P[:F]  with probability P a round's training takes F times as long (10)
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..errors import UsageError, nearest

KINDS = {"dropout": 60.0, "straggler": 10.0}  # and the default of each one's second number


@dataclass(frozen=True)
class Faults:
    """Each kind's (probability, size)."""

    dropout: tuple[float, float] = (0.0, KINDS["dropout"])
    straggler: tuple[float, float] = (0.0, KINDS["straggler"])

    @classmethod
    def parse(cls, spec: str) -> Faults:
        """Read a spec; UsageError says what is off."""
        found: dict[str, tuple[float, float]] = {}
        for item in filter(None, spec.split(",")):
            kind, *numbers = item.split(":")
            if kind not in KINDS:
                raise UsageError(f"unknown fault {kind!r}: {nearest(kind, KINDS)}")
            try:
                probability, size, *rest = [float(n) for n in numbers] + [KINDS[kind]]
            except ValueError:
                raise UsageError(
                    f"fault {item!r} wants numbers: write {kind}:0.1 or {kind}:0.1:{KINDS[kind]:g}"
                ) from None
            if not 0 <= probability <= 1 or size <= 0 or len(rest) > 1:
                raise UsageError(f"fault {item!r}: a probability from 0 to 1, then one positive number")
            found[kind] = (probability, size)
        return cls(**found)

    def drops_after(self, rng: random.Random, duration_s: float) -> tuple[float, float] | None:
        """(seconds until power is lost, seconds without power) within a training of `duration_s`, or None."""
        probability, away_s = self.dropout
        return (rng.uniform(0, duration_s), away_s) if rng.random() < probability else None

    def slowdown(self, rng: random.Random) -> float:
        """How many times as long a training takes."""
        probability, factor = self.straggler
        return factor if rng.random() < probability else 1.0
