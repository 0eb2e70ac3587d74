"""Which loss a model is trained on, and why: named, or inferred from the file's end and from targets.

A file of logits does not say whether its targets are labels or numbers. A caller that has targets passes them: the
aggregator those of its test set, `edgefl simulate`, `inspect` and `new` those of their data. Devices compare theirs
with the loss before they train (core/targets.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from ..core.targets import LABELS, OF_CLASSES, VALUES, kind_of
from ..plural import plural

TAKES_LABELS = OF_CLASSES  # instead of the Softmax that the file ends in
LOSS_OF_TAIL = {"softmax": "cross_entropy", "log_softmax": "cross_entropy", "sigmoid": "bce"}
NAMES = {"softmax": "Softmax", "log_softmax": "LogSoftmax", "sigmoid": "Sigmoid"}


class Loss(NamedTuple):
    """`tail`: the loss that goes with the file's last op, None if that says nothing."""

    name: str
    why: str
    tail: str | None


def infer_loss(
    named: str | None,
    last_op: str,
    declared: str | None,
    *,
    shape: Sequence[int],
    input_shape: Sequence[int],
    y: np.ndarray | None,
) -> Loss:
    """The loss of an output of this `shape` a sample. `declared` is what the last op itself says of it."""
    tail = LOSS_OF_TAIL.get(last_op)
    if named:
        return Loss(named, "as `loss` says", tail)
    if tail:
        return Loss(tail, f"the model ends in {NAMES[last_op]}", tail)
    if declared:
        return Loss(declared, "the model's last op is a regressor", None)
    found = "" if y is None else kind_of(shape, y)
    if found == LABELS:
        return Loss("cross_entropy", f"the targets are labels, for {_outputs(shape)}", None)
    if found == VALUES:
        return Loss("mse", f"the targets are numbers, for {_outputs(shape)}", None)
    if prod(shape) == 1:
        return Loss("mse", "the model has one output", None)
    if tuple(shape) == tuple(input_shape):
        return Loss("mse", "the output has the input's shape, as an autoencoder's", None)
    return Loss("cross_entropy", f"{_outputs(shape)}, which stand for classes unless `loss` says otherwise", None)


def _outputs(shape: Sequence[int]) -> str:
    return plural(prod(shape), "output")
