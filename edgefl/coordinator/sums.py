"""Sums over the updates of a round: what its record says of all of them together. No I/O. Part of RoundCoordinator."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from ..protocol.update_header import UpdateHeader


@dataclass
class Mean:
    """The weighted mean of numbers, without those that are None. Exact, so that their order makes no difference."""

    total: Fraction = Fraction(0)
    weight: int = 0

    def add(self, value: float | None, weight: int) -> None:
        if value is not None:
            self.total += Fraction(value) * weight
            self.weight += weight

    @property
    def value(self) -> float | None:
        """None if the weights add up to 0."""
        return float(self.total / self.weight) if self.weight else None


@dataclass
class Sums:
    """Sums over the headers of the updates that were added: ten thousand headers would take memory."""

    examples: int = 0
    bytes_down: int = 0
    evaluated: int = 0  # examples held out
    loss: Mean = field(default_factory=Mean)
    eval_loss: Mean = field(default_factory=Mean)
    eval_accuracy: Mean = field(default_factory=Mean)

    def add(self, header: UpdateHeader) -> None:
        self.examples += header.num_examples
        self.bytes_down += header.bytes_down
        self.loss.add(header.loss, header.num_examples)

    def add_scores(self, header: UpdateHeader) -> None:
        """Scores of the model that the round began with."""
        self.evaluated += header.num_eval
        self.eval_loss.add(header.eval_loss, header.num_eval)
        self.eval_accuracy.add(header.eval_accuracy, header.num_eval)
