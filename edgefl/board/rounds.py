"""Rounds: the newest rounds for a table, all of them as curves, and sums since the beginning. Bounded. No I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

import msgspec

from ..history_record import MOVED, RoundRecord, without_name
from .views import Version

KEPT = 200  # rounds with their detail
NAMED = 30  # devices of a round
VERSIONS = 10_000  # whose scores are kept
POINTS = 400  # of a curve; more rounds share points
BUCKETS_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)


class Round(msgspec.Struct, frozen=True, omit_defaults=True):
    """A round that is over, as its record has it (history_record.RoundRecord). `missed` says of at most NAMED devices
    why they did not count; `without` counts all of them."""

    round: int
    state: str
    version: int
    reported: int = 0
    asked: int = 0
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    accuracy: float | None = None
    loss: float | None = None
    device_accuracy: float | None = None
    device_loss: float | None = None
    personal: int = 0
    own: int = 0
    personal_accuracy: float | None = None
    personal_loss: float | None = None
    train_loss: float | None = None
    num_examples: int = 0
    rejected: int = 0
    deferred: int = 0
    late: int = 0
    closed_at: int = 0
    restored: int | None = None
    why: str = ""
    devices: list[str] = []
    missed: dict[str, str] = {}
    without: int = 0

    @classmethod
    def of(cls, record: RoundRecord) -> Round:
        """What a table shows of this record."""
        same = {name: getattr(record, name) for name in cls.__struct_fields__ if hasattr(record, name)}
        same["devices"] = record.devices[:NAMED]
        same["missed"] = dict(islice(record.missed.items(), NAMED))
        asked = len(set(record.devices) | set(record.missed))
        return cls(**same, asked=asked, late=len(record.folded), without=len(record.missed))

    def without_device(self, device: str) -> Round:
        """The same without the name of one device, which its counts still have."""
        return msgspec.structs.replace(
            self, why=without_name(self.why, device), devices=[name for name in self.devices if name != device],
            missed={name: why for name, why in self.missed.items() if name != device},
        )  # fmt: skip


class Rounds(msgspec.Struct, frozen=True):
    """Newest first."""

    rounds: list[Round]


class Curves(msgspec.Struct, frozen=True):
    """A value for each point, in columns; null where a point has none. A point stands for `rounds_per_point` rounds:
    scores are the last one's, bytes, seconds and joules the mean."""

    rounds_per_point: int
    round: list[int]
    accuracy: list[float | None]
    loss: list[float | None]
    device_accuracy: list[float | None]
    device_loss: list[float | None]
    personal_accuracy: list[float | None]
    personal_loss: list[float | None]
    train_loss: list[float | None]
    bytes_up: list[float]
    bytes_down: list[float]
    seconds: list[float]
    reported: list[float]
    joules_low: list[float]
    joules_high: list[float]


_SCORES = ("accuracy", "loss", "device_accuracy", "device_loss", "personal_accuracy", "personal_loss", "train_loss")
_SUMS = ("bytes_up", "bytes_down", "seconds", "reported")
_MEANS = (*_SUMS, "joules_low", "joules_high")  # 0 joules: nobody has said what devices spend


class Totals:
    """Sums of all rounds since the beginning, for metrics: they only rise."""

    def __init__(self) -> None:
        self.rounds: dict[str, int] = {}
        self.reported = self.rejected = self.missed = self.bytes_up = self.bytes_down = self.examples = 0
        self.seconds = 0.0
        self.buckets = [0] * len(BUCKETS_S)  # rounds that took at most so long

    def add(self, record: RoundRecord) -> None:
        self.rounds[record.state] = self.rounds.get(record.state, 0) + 1
        self.reported += record.reported
        self.rejected += record.rejected
        self.missed += len(record.missed)
        self.bytes_up += record.bytes_up
        self.bytes_down += record.bytes_down
        self.examples += record.num_examples
        self.seconds += record.seconds
        for place, bound in enumerate(BUCKETS_S):
            self.buckets[place] += record.seconds <= bound


@dataclass
class _Point:
    """What a point of the curves stands for: some rounds that follow each other."""

    round: int
    scores: list[float | None]
    sums: list[float]
    rounds: int = 1

    @classmethod
    def of(cls, record: RoundRecord) -> _Point:
        scores = [getattr(record, name) for name in _SCORES]
        if record.state not in MOVED:
            scores[:2] = [None, None]  # those of a model that was refused are not the federation's
        return cls(
            record.round, scores, [float(getattr(record, name)) for name in _SUMS] + list(record.joules or (0.0, 0.0))
        )

    def absorb(self, later: _Point) -> None:
        """Stand for the rounds of the `later` point too."""
        self.round, self.rounds = later.round, self.rounds + later.rounds
        self.scores = [new if new is not None else old for old, new in zip(self.scores, later.scores, strict=True)]
        self.sums = [a + b for a, b in zip(self.sums, later.sums, strict=True)]


class Past:
    """All rounds so far, in bounded memory. One thread at a time uses it."""

    def __init__(self, points: int = POINTS) -> None:
        self._most, self._per_point = points, 1
        self._points: list[_Point] = []
        self._newest: deque[Round] = deque(maxlen=KEPT)
        self._made: dict[int, Version] = {}
        self.totals = Totals()
        self.last = 0  # the newest round that was added

    def add(self, record: RoundRecord) -> None:
        """The next round; one that was added before is left out."""
        if record.round <= self.last:
            return
        self.last = record.round
        self.totals.add(record)
        self._newest.append(Round.of(record))
        if record.state in MOVED:
            self._made[record.version] = Version(
                record.version, record.round, record.closed_at, record.accuracy, record.loss, record.restored
            )
            if len(self._made) > VERSIONS:
                del self._made[next(iter(self._made))]
        self._draw(_Point.of(record))

    def forget(self, device: str) -> None:
        """No round names the device any more."""
        self._newest = deque((round.without_device(device) for round in self._newest), maxlen=KEPT)

    def _draw(self, point: _Point) -> None:
        if self._points and self._points[-1].rounds < self._per_point:
            self._points[-1].absorb(point)
            return
        self._points.append(point)
        if len(self._points) > self._most:
            self._per_point *= 2
            pairs, rest = self._points[::2], self._points[1::2]
            for left, right in zip(pairs, rest, strict=False):
                left.absorb(right)
            self._points = pairs

    def rounds(self, before: int = 0, limit: int = KEPT) -> Rounds:
        """The newest rounds; those before round `before`, if it is given."""
        found = [r for r in reversed(self._newest) if not before or r.round < before]
        return Rounds(found[: max(0, limit)])

    def curves(self) -> Curves:
        """All rounds, in at most so many points."""
        scores = zip(*(point.scores for point in self._points), strict=True) if self._points else [[]] * len(_SCORES)
        means = [[p.sums[place] / p.rounds for p in self._points] for place in range(len(_MEANS))]
        columns = {name: list(column) for name, column in zip(_SCORES, scores, strict=True)}
        columns |= dict(zip(_MEANS, means, strict=True))
        return Curves(self._per_point, [point.round for point in self._points], **columns)

    def version(self, number: int) -> Version:
        """What is known of this version: that of a model file that has not been trained has no round."""
        return self._made.get(number) or Version(number)

    @property
    def newest(self) -> Version | None:
        """The newest version that a round has made."""
        return self._made[next(reversed(self._made))] if self._made else None
