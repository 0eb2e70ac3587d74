"""Weights: what an update counts in a sum, by its number of examples n_k (`strategy.weights`).

    examples     n_k: every example counts alike (FedAvg)
    uniform      every device counts alike
    capped:N     min(n_k, N): a device with very many examples counts as one with N

Where influence is bounded (updates/influence.py), it is measured in these weights, and a weight that was lowered
for its influence is lowered by the same share here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..core.accumulator import MAX_WEIGHT
from ..errors import UsageError
from .base import Update

UNIT = 2**12  # the weight of every device: a share of it, for a late update, is still a whole number
_FORM = re.compile(r"capped:([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Weights:
    """`most` is N, or None without a cap; `uniform` weights are alike."""

    most: int | None = None
    uniform: bool = False

    @classmethod
    def of(cls, text: str) -> Weights:
        """What the setting says; UsageError for anything else."""
        if text in ("examples", "uniform"):
            return cls(uniform=text == "uniform")
        if found := _FORM.fullmatch(text):
            return cls(int(found[1]))
        raise UsageError(
            f'strategy.weights is {text!r}: give "examples", "uniform" or "capped:N", such as "capped:500"'
        )

    def weigh(self, num_examples: int) -> int:
        """The weight of an update of so many examples."""
        if self.uniform:
            return UNIT
        return num_examples if self.most is None else min(num_examples, self.most)

    def apply(self, update: Update) -> Update:
        """The update with its weight for n_k. One whose examples are absurd stays as it is: it will be refused."""
        if self == EXAMPLES or not 1 <= update.num_examples <= MAX_WEIGHT:
            return update
        n, weight = update.examples, self.weigh(update.examples)
        lowered = weight if update.num_examples >= n else max(1, weight * update.num_examples // n)
        if update.allowed is not None:  # whole examples would be too coarse where a device has few
            lowered = min(weight, update.allowed)
        return replace(update, num_examples=lowered, claimed=n)


EXAMPLES = Weights()
