"""Sums over the updates of a round: what its record says of all of them together. No I/O. Part of RoundCoordinator.

What devices say of themselves can be absurd, by a fault or on purpose. So losses and accuracies are clipped means: of
three devices or more, a value further from the median than `SPREADS` median absolute deviations, and than `TIMES` the
median itself, counts as if it were just so far; a weight above `HEAVY` times the median weight counts as that. The
medians are the lower ones of two. One absurd value among honest ones therefore moves the mean by little, and where no
value is absurd it is the weighted mean. Accuracies lie between 0 and 1, so only their weights are clipped: where the
accuracy of most devices is 0, their median says nothing of the others.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

from ...protocol.update_header import UpdateHeader
from .influence import median

SPREADS, TIMES, HEAVY = 10, 3, 10


class ClippedMean:
    """The weighted mean of numbers, without those that are None. Exact, so that their order makes no difference.
    `bounded` numbers can't be absurd: they are not clipped, their weights are."""

    def __init__(self, *, bounded: bool = False) -> None:
        self._values, self._weights, self._bounded = array("d"), array("q"), bounded

    def add(self, value: float | None, weight: int) -> None:
        if value is not None and weight:
            self._values.append(value)
            self._weights.append(weight)

    @property
    def value(self) -> float | None:
        """None without any number."""
        values, weights = self._values, self._weights
        if not values:
            return None
        lowest, highest, heaviest = min(values), max(values), max(weights)
        if len(values) > 2:
            heaviest = HEAVY * int(median(weights))
        if len(values) > 2 and not self._bounded:
            middle = median(values)
            reach = max(SPREADS * median(abs(value - middle) for value in values), TIMES * abs(middle))
            lowest, highest = middle - reach, middle + reach
        total, weight = Fraction(0), 0
        for value, own in zip(values, weights, strict=True):
            counted = min(own, heaviest)
            total += Fraction(min(max(value, lowest), highest)) * counted
            weight += counted
        return float(total / weight)


def _accuracies() -> ClippedMean:
    return ClippedMean(bounded=True)


@dataclass
class Sums:
    """Sums over the headers of the updates that were added."""

    examples: int = 0
    bytes_down: int = 0
    evaluated: int = 0  # examples held out
    loss: ClippedMean = field(default_factory=ClippedMean)
    eval_loss: ClippedMean = field(default_factory=ClippedMean)
    eval_accuracy: ClippedMean = field(default_factory=_accuracies)
    personal: int = 0  # devices with a personal model
    own: int = 0  # of these, devices that keep it, and not the received one
    personal_loss: ClippedMean = field(default_factory=ClippedMean)
    personal_accuracy: ClippedMean = field(default_factory=_accuracies)

    def add(self, header: UpdateHeader) -> None:
        self.examples += header.num_examples
        self.bytes_down += header.bytes_down
        self.loss.add(header.loss, header.num_examples)

    def add_scores(self, header: UpdateHeader) -> None:
        """Scores of the model that the round began with."""
        self.evaluated += header.num_eval
        self.eval_loss.add(header.eval_loss, header.num_eval)
        self.eval_accuracy.add(header.eval_accuracy, header.num_eval)
        if header.personal is not None:
            self.personal, self.own = self.personal + 1, self.own + header.personal.own
            self.personal_loss.add(header.personal.loss, header.num_eval)
            self.personal_accuracy.add(header.personal.accuracy, header.num_eval)
