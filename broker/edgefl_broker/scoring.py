"""Scoring: what each new model is worth on the aggregator's test set."""

from __future__ import annotations

import numpy as np

from edgefl.coordinator.events import Evaluated
from edgefl.data import Dataset
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.model import Model


class Scoring:
    """Scores nothing without a test set."""

    def __init__(self, model: Model, test: Dataset | None) -> None:
        self._test = test
        self._evaluator = None if test is None else OnnxEvaluator(model)

    def score(self, params: np.ndarray) -> Evaluated:
        """The scores of the model with these params (P,)."""
        if self._evaluator is None or self._test is None:
            return Evaluated()
        assert self._test.x_test is not None and self._test.y_test is not None
        result = self._evaluator.evaluate(params, self._test.x_test, self._test.y_test)
        return Evaluated(result.loss if np.isfinite(result.loss) else None, result.accuracy)
