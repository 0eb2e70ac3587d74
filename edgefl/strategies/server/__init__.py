"""Server optimizers: how the combined delta moves the global model. One rule a file."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..base import Part


class ServerOptimizer(Part, ABC):
    """The delta is local − global: an optimizer of the papers that takes a gradient g gets −Δ."""

    @abstractmethod
    def step(self, params: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The next params, (P,) float32, of `params` and the round's `delta`, both (P,) float32 and left unchanged."""
