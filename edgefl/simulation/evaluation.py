"""Evaluation of a round's model on the test set, on as many threads as train.

No round waits for one core alone: while a test set is evaluated, no device trains yet, so all cores are free for it.
Pieces are the same for any number of threads, and are added up in order, so the scores have the same bits.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..coordinator.events import Evaluated
from ..core.mask import Mask
from ..core.trainer import Trainer
from ..data import Dataset
from ..device.training import MAX_CHUNK
from ..onnx.model import Model

PIECE = 8 * MAX_CHUNK  # examples


def evaluator(model: Model, data: Dataset, mask: Mask, threads: int) -> Callable[[np.ndarray], Evaluated]:
    """A function of params that gives their scores on the test set. It gives no scores without a test set, and where
    devices have personal params, which the aggregator lacks."""
    if data.x_test is None or data.y_test is None or mask.personal:
        return lambda params: Evaluated()
    return Evaluator(model, data.x_test, data.y_test, threads)


class Evaluator:
    """x (n, ...), y (n, ...): the test set."""

    def __init__(self, model: Model, x: np.ndarray, y: np.ndarray, threads: int) -> None:
        self._pieces = [(x[start : start + PIECE], y[start : start + PIECE]) for start in range(0, len(x), PIECE)]
        self._threads = min(threads, len(self._pieces))
        self._trainers: queue.SimpleQueue[Trainer] = queue.SimpleQueue()
        for _ in range(self._threads):
            self._trainers.put(Trainer(model.plan, batch=MAX_CHUNK))

    def __call__(self, params: np.ndarray) -> Evaluated:
        def work(piece: tuple[np.ndarray, np.ndarray]) -> tuple[float, float | None]:
            trainer = self._trainers.get()
            try:
                result = trainer.evaluate(params, *piece)
            finally:
                self._trainers.put(trainer)
            return result.loss, result.accuracy

        if self._threads == 1:
            return self._summed_up([work(piece) for piece in self._pieces])
        with ThreadPoolExecutor(self._threads) as pool:
            return self._summed_up(list(pool.map(work, self._pieces)))

    def _summed_up(self, found: list[tuple[float, float | None]]) -> Evaluated:
        """The means over all examples, of the means over the pieces, in their order."""
        counts = [y.size for _, y in self._pieces]
        if len(found) == 1:
            loss, accuracy = found[0]
        else:
            loss = sum(mean * count for (mean, _), count in zip(found, counts, strict=True)) / sum(counts)
            right = [None if share is None else round(share * n) for (_, share), n in zip(found, counts, strict=True)]
            accuracy = None if None in right else sum(filter(None, right)) / sum(counts)
        return Evaluated(loss if math.isfinite(loss) else None, accuracy)
