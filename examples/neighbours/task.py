"""The task that all neighbours share: eight workers with a few digits each, one model, one learning rate.

Every script beside this one is another way to train on it. All of them compute with the same core, so that where two
agree in theory they agree here up to rounding.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import edgefl
from edgefl.onnx import zoo
from edgefl.simulation.split.partitions import split

WORKERS, STEPS, LR = 8, 20, 0.2
EXAMPLES = 160  # of each worker
PARTITION = "shards:2"  # sorted by label and dealt: a worker has two to four labels

_all = edgefl.data.load("digits")
DATA = replace(_all, x_train=_all.x_train[: WORKERS * EXAMPLES], y_train=_all.y_train[: WORKERS * EXAMPLES])
MODEL = edgefl.load(zoo.from_spec("mlp:64-32-10", seed=0))
TRAINER = edgefl.Trainer(MODEL.plan, batch=EXAMPLES)
PARTS = split(DATA, PARTITION, WORKERS, seed=0)


def examples(worker: int) -> tuple[np.ndarray, np.ndarray]:
    """x (n, 64) and y (n,) of one worker, in the order in which it has them."""
    return DATA.x_train[PARTS[worker]], DATA.y_train[PARTS[worker]]


def gradient(params: np.ndarray, worker: int) -> np.ndarray:
    """(P,): of the mean loss over all examples of one worker."""
    return TRAINER.gradient(params, *examples(worker))


def loss(params: np.ndarray) -> float:
    """Over the examples of all workers."""
    return TRAINER.evaluate(params, DATA.x_train, DATA.y_train).loss


def accuracy(params: np.ndarray) -> float:
    """On the test set."""
    return TRAINER.evaluate(params, DATA.x_test, DATA.y_test).accuracy


def distance(params: np.ndarray, other: np.ndarray) -> float:
    """The largest difference between two models' params."""
    return float(np.abs(np.float64(params) - other).max())
