"""Targets: whether y is what a loss compares the model's output with, and what would fit if it is not.

Labels are whole numbers without the output's axis of classes. Numbers have the output's shape. Losses of classes take
labels, all others numbers. A device looks here before it trains, and the aggregator before it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .plan import Plan

OF_CLASSES = ("cross_entropy", "hinge", "focal")  # losses that take labels
LABELS, VALUES = "labels", "values"  # codes: what y is, where the loss takes the other
WHOLE = "iub"  # kinds of dtype


def kind_of(shape: Sequence[int], y: NDArray[Any]) -> str:
    """LABELS or VALUES, for a model with this output a sample; "" if y fits neither, or either."""
    if y.shape[1:] == tuple(shape) or (y.ndim == 1 and np.prod(shape) == 1):
        return VALUES
    inner = [size for size in shape if size > 1]
    whole = y.dtype.kind in WHOLE and len(inner) > 0
    return LABELS if whole and _lacks_an_axis(tuple(shape), y.shape[1:]) else ""


def _lacks_an_axis(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    return any(shape[:axis] + shape[axis + 1 :] == given for axis in range(len(shape)))


def check(loss: str, output: Sequence[int], y: NDArray[Any]) -> None:
    """DataError if `loss` compares an output of this shape with the other kind of targets than y.

    Its code is what y is. It says nothing where y fits neither kind: the error of reading the arrays names that.
    """
    found = kind_of(output, y)
    if loss in OF_CLASSES and found == VALUES and y.dtype.kind == "f" and np.prod(output) > 1:
        text = f"y is {y.dtype} numbers {y.shape}, and loss {loss!r} takes integer labels"
        raise DataError(f"{text}: load the model with loss='mse', or give labels", text, VALUES)
    if loss not in OF_CLASSES and found == LABELS:
        text = f"y is integer labels {y.shape}, and loss {loss!r} takes numbers"
        raise DataError(f"{text}: load the model with loss='cross_entropy', or give numbers", text, LABELS)


def check_classes(output: Sequence[int], count: int) -> None:
    """DataError if data whose labels have `count` names are not for a model with this output a sample. One output tells
    two classes apart."""
    classes = max(2, int(np.prod(output)))
    if count != classes:
        text = f"its labels are {count}, and the model has {classes} classes"
        raise DataError(
            f"{text}: write the same list of all classes as labels= everywhere, or give it as many outputs", text
        )


def check_classes_of(plan: Plan, labels: Mapping[str, Sequence[str]]) -> None:
    """DataError if the names of several targets' labels, by output, are not as many as that output's classes, or are
    for an output whose loss takes numbers. Outputs that the plan lacks are found where columns are ordered."""
    for head in plan.losses or []:
        if head.name not in labels:
            continue
        try:
            if head.loss not in OF_CLASSES:
                text = f"it has labels, and loss {head.loss!r} takes numbers"
                raise DataError(f"{text}: leave out labels.{head.name}=, or train it with 'cross_entropy'", text)
            check_classes(head.shape, len(labels[head.name]))
        except DataError as error:
            where = f"target {head.name!r}: "
            raise DataError(f"{where}{error}", f"{where}{error.safe}", error.code) from None


def remedy(code: str, loss: str) -> str:
    """What an operator does about targets of the kind `code`, which do not fit `loss`."""
    if code == VALUES:
        return 'set loss = "mse" in aggregator.toml, or have the devices give labels (kind=classes in the data\'s SPEC)'
    if loss == "bce":
        return 'let the model end without its Sigmoid, and set loss = "cross_entropy" in aggregator.toml'
    return 'set loss = "cross_entropy" in aggregator.toml, or have the devices give numbers (kind=values in the SPEC)'
