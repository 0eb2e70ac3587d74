"""What a model has cost until it was there: rounds, bytes, time and energy. Sums over a history's records. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from .history_record import RoundRecord
from .history_text import size

AXES = {"rounds": "round", "megabytes": "MB, up and down", "hours": "hours", "joules": "joules"}


class Cost(msgspec.Struct, frozen=True):
    """From the start of a run to the end of `round`. `seconds` have the waiting between rounds in them, where that is
    known: in a simulation, and where the aggregator's clock could be trusted. `joules` are a range, of simulated
    devices that a world describes; None: nobody has said what devices spend."""

    round: int
    bytes_up: int
    bytes_down: int
    seconds: float
    joules: tuple[float, float] | None = None

    def on(self, axis: str) -> float | None:
        """The value on one of AXES: of joules, the middle of the range."""
        values = {
            "rounds": float(self.round),
            "megabytes": (self.bytes_up + self.bytes_down) / 1e6,
            "hours": self.seconds / 3600,
            "joules": None if self.joules is None else sum(self.joules) / 2,
        }
        return values[axis]

    def __str__(self) -> str:
        return f"{size(self.bytes_up)} up, {size(self.bytes_down)} down, {spent(self.seconds, self.joules)}"


def costs(records: Iterable[RoundRecord]) -> Iterator[Cost]:
    """The cost up to each record."""
    began: float | None = None
    up = down = 0
    summed, low, high = 0.0, 0.0, 0.0
    known = False
    for record in records:
        up, down, summed = up + record.bytes_up, down + record.bytes_down, summed + record.seconds
        if record.joules is not None:
            known, low, high = True, low + record.joules[0], high + record.joules[1]
        if record.closed_at and began is None:
            began = record.closed_at - summed
        seconds = record.elapsed_s
        if not seconds:
            seconds = summed if began is None or not record.closed_at else max(summed, record.closed_at - began)
        yield Cost(record.round, up, down, seconds, (low, high) if known else None)


def spent(seconds: float, joules: tuple[float, float] | None) -> str:
    """Time and energy for people to read, such as "2.3 h, 120 to 340 J"."""
    return duration(seconds) + ("" if joules is None else f", {energy(*joules)}")


def duration(seconds: float) -> str:
    """In the unit that fits."""
    for unit, of in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * of:
            return f"{seconds / of:.3g} {unit}"
    return f"{seconds:.3g} s"


def energy(low: float, high: float) -> str:
    """A range of joules, in the unit that fits its upper end."""
    factor, unit = next(((of, name) for of, name in ((1e6, "MJ"), (1e3, "kJ")) if high >= of), (1.0, "J"))
    texts = [f"{value / factor:.3g}" for value in (low, high)]
    return f"{texts[0]} {unit}" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]} {unit}"
