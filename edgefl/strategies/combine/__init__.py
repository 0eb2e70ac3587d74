"""Combiners: how a round's updates become one delta. One rule a file."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..base import Part, Update


class Combine(Part, ABC):
    """`start`, then `add` for each update, then `finish`. The order of the updates must not matter to any bit.

    `alike`: every update counts `UNIT` (weights.py), whatever its examples, or `allowed` of that.
    """

    alike: bool = False

    def reach(self, num_examples: int) -> float:
        """As a strategy's."""
        return 1.0

    @abstractmethod
    def start(self, num_params: int) -> None:
        """Begin a round; what was added before is dropped."""

    @abstractmethod
    def add(self, update: Update) -> None:
        """Count one update; CodecError, with nothing changed, if it is refused."""

    @abstractmethod
    def finish(self) -> np.ndarray:
        """The round's delta, (P,) float32."""
