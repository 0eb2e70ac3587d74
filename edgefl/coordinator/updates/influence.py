"""Influence: how much one update may move a model, and the weight that it counts with. No I/O. Part of Admission.

An update with n examples and delta Δ moves the sum of a round by n ‖Δ‖, and by its share of the examples it holds all
others back, however short Δ is. So its influence is

    n · max(‖Δ‖, m)                               m: the median of the devices' ‖Δ‖

and an update of device k counts whole up to

    factor · s_k · median over devices j of (n_j ‖Δ_j‖ / s_j)

s is a device's size: the examples that it is enrolled with, else the median of the devices' n. Without sizes that are
enrolled, every device thus has the same bound, and a device with many more examples than the others counts as if it had
fewer.

n is the weight that the strategy gives to the device's examples (`strategy.weights`): where all devices count alike, it
is the same for all. ‖Δ‖ is the length of the delta as it moves the model (`Strategy.reach`): FedNova divides it by
the device's steps.

Medians are over each device's last update of the last `UNEARNED_ROUNDS` rounds that has counted, or was refused for its
influence. Without the refused ones, a device that was alone for some rounds would set a bound that refuses all others,
and keeps it. Medians are fixed when the round opens, and come from the records alone: the order in which updates arrive
changes nothing, and a restart computes the same. The median of an even number of values is the lower one of the two in
the middle.

Above the bound an update counts with the largest whole weight that stays within it, and at least with 1. It is refused
if its delta alone is `REFUSED` times longer than `factor` allows a device of its size, if it claims `MOST_EXAMPLES`
times the median n and its size is not known, or, while m is not known, if its delta alone is `REFUSED` times the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ... import _core
from ...errors import ProtocolError
from ...history_record import RoundRecord
from ...protocol.round import UNEARNED_ROUNDS

REFUSED = 10.0
PROOF = 3  # devices: the median of fewer can't tell which of them is wrong
MOST_EXAMPLES = 1000

Claim = tuple[int, float]  # n and ‖Δ‖
Weigh = Callable[[int], int]  # what so many examples count in the strategy's sum
Reach = Callable[[int], float]  # by what the delta of a device with so many examples is longer for that
Size = Callable[[str], int | None]  # the examples that a device is enrolled with, if that is known


class TooMuch(ProtocolError):
    """An update that is refused for its influence: `claim`. `proven`: enough devices have set the bound."""

    def __init__(self, message: str, code: str, claim: Claim, proven: bool) -> None:
        super().__init__(message, code)
        self.claim, self.proven = claim, proven


@dataclass(frozen=True)
class Bound:
    """`most` is the influence that counts whole, for a device of the size `examples`; `typical` is m. It was set by so
    many `devices`; None: by the operator."""

    most: float
    factor: float = math.inf
    examples: int = 0
    typical: float = 0.0
    devices: int | None = None

    @classmethod
    def of(cls, factor: float, claims: Mapping[str, Claim], size: Size) -> Bound:
        """The bound by these claims; there must be one at least."""
        examples = int(median(n for n, _ in claims.values()))
        per_example = median(n * norm / (size(device) or examples) for device, (n, norm) in claims.items())
        typical = median(norm for _, norm in claims.values())
        return cls(factor * per_example * examples, factor, examples, typical, len(claims))

    def weight(self, claim: Claim, size: int | None, told: Claim | None = None) -> int:
        """The weight of an update, at most n; TooMuch if it is refused, which names what its device has `told`."""
        n, norm = claim
        examples, length_told = told or claim
        length = max(norm, self.typical)
        most = self.most * self._relative(size)
        if n * length <= most:
            return n
        proven = self.devices is None or self.devices >= PROOF
        what = f"{examples} examples with |delta| {length_told:.3g}, {self.times(claim, size):.3g} times the bound"
        if not size and self.examples and n > MOST_EXAMPLES * self.examples:
            raise TooMuch(f"update of {what}: rejected", "examples", claim, proven)
        if norm > self.longest(size):
            raise TooMuch(f"update of {what}: rejected", "influence", claim, proven)
        return max(1, int(most / length))

    def longest(self, size: int | None) -> float:
        """The ‖Δ‖ above which an update is refused, unless it counts whole."""
        relative = self._relative(size)
        return REFUSED * (self.factor * self.typical * max(1.0, relative) if self.typical else self.most * relative)

    def times(self, claim: Claim, size: int | None) -> float:
        """The influence of an update in multiples of its bound."""
        n, norm = claim
        most = self.most * self._relative(size)
        return n * max(norm, self.typical) / most if most else math.inf

    def _relative(self, size: int | None) -> float:
        return size / self.examples if size and self.examples else 1.0


def all_examples(num_examples: int) -> int:
    """FedAvg's weight."""
    return num_examples


def as_long(num_examples: int) -> float:
    """FedAvg's reach."""
    return 1.0


class Influence:
    """What each device's last update was. `factor` None: every influence is allowed. `first` is the bound while
    no update has counted; None: it is not known before the round closes. All numbers of examples are taken as what
    `weigh` makes of them, and lengths as what `reach` does."""

    def __init__(
        self, factor: float | None, first: float | None, size: Size, weigh: Weigh = all_examples, reach: Reach = as_long
    ) -> None:
        self.factor, self._first, self._size, self._weigh, self.reach = factor, first, size, weigh, reach
        self._last: dict[str, tuple[int, Claim]] = {}  # and the round that it came in

    def learn(self, record: RoundRecord) -> None:
        """A round is over; records come in their order. What was in its sum, but in no model, tells nothing."""
        in_sum = {*record.devices, *(device for device, _ in record.folded)}
        for device, claim in record.influence.items():
            if record.state == "committed" or device not in in_sum:
                self._last[device] = record.round, claim

    def forget(self, device: str) -> None:
        self._last.pop(device, None)

    def open(self, round: int) -> Bound | None:
        """The bound of the round that opens; None if it is not known yet, or none is wanted."""
        oldest = round - UNEARNED_ROUNDS
        self._last = {device: last for device, last in self._last.items() if last[0] >= oldest}
        if self._last:
            return self.of({device: claim for device, (_, claim) in self._last.items()})
        return None if self._first is None or self.factor is None else Bound(self._first)

    def of(self, claims: Mapping[str, Claim]) -> Bound | None:
        """The bound by these claims; None if none is wanted."""
        if self.factor is None or not claims:
            return None
        return Bound.of(self.factor, {device: self._weighed(claim) for device, claim in claims.items()}, self._weight)

    def weigh(self, claim: Claim, device: str, bound: Bound) -> tuple[int, int, float]:
        """The examples that an update of the device counts with, at most those that it claims, the weight that is
        left to it, and its influence in multiples of `bound`; TooMuch if it is refused."""
        weighed, size, (n, _) = self._weighed(claim), self._weight(device), claim
        try:
            weight = bound.weight(weighed, size, claim)
        except TooMuch as error:
            error.claim = claim
            raise
        lowered = n if weight == weighed[0] else max(1, n * weight // weighed[0])
        return lowered, weight, bound.times(weighed, size)

    def _weighed(self, claim: Claim) -> Claim:
        n, norm = claim
        return self._weigh(n), norm * self.reach(n)

    def _weight(self, device: str) -> int | None:
        """The device's size."""
        examples = self._size(device)
        return None if examples is None else self._weigh(examples)


def norm_of(delta: np.ndarray) -> float:
    """‖Δ‖ of (P,) float32, to six digits: on every machine the same."""
    return float(f"{_core.rms(delta) * math.sqrt(len(delta)):.6g}")


def median(values: Iterable[float]) -> float:
    """The lower one of the two in the middle, or the one."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]
