"""Columns: which axis of an example has its columns, and where a plan keeps their scaling.

Aggregator and device compute both from the plan alone, so a profile's message need not say them.

    a sample of one axis                    that axis
    a plan that begins with a convolution   the axis of its channels
    any other sample of two axes            the last: time steps of features
    any other sample                        the first: channels of an image

The scaling are the first two ops of the plan, x - mean and then times scale, and two untrained params of one number for
each column. They are found by their names (onnx/scaling.py puts them into the file).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import _core
from .plan import Plan
from .targets import OF_CLASSES

MEAN, SCALE = "edgefl.scaling.mean", "edgefl.scaling.scale"
MOST = 4096  # columns that a profile has
CONVOLUTIONS = {"conv": -2, "depthwise": -1}  # where its kernel has the channels of the input


class Columns(NamedTuple):
    """Axis `axis` of a sample (x without its axis of samples) has so many columns, `number`; 0: there are no columns to
    tell of, as in token models."""

    axis: int
    number: int

    @classmethod
    def of(cls, plan: Plan) -> Columns:
        """The columns of the examples that this plan trains on."""
        shape, axis = plan.input_shape, _axis(plan)
        count = shape[axis] if plan.input_dtype == "float32" else 0
        return cls(axis, count if count <= MOST else 0)


def labels_of(plan: Plan) -> int:
    """How many labels the targets may have, at least; 0 if they are numbers, or several."""
    if plan.losses or plan.loss not in OF_CLASSES:
        return 0
    return max(2, math.prod(_core.Net(plan, 1, None, 1).shapes[plan.loss_input]))


def _axis(plan: Plan) -> int:
    shape = plan.input_shape
    last = len(shape) - 1
    for node in plan.nodes:
        if node.op in CONVOLUTIONS and node.params:
            kernel = plan.params[node.params[0]].shape
            return 0 if kernel[CONVOLUTIONS[node.op]] == shape[0] else last
    return last if len(shape) == 2 else 0


class Scaling(NamedTuple):
    """Where in the params (P,) mean and scale of each column lie."""

    mean: slice
    scale: slice

    @classmethod
    def of(cls, plan: Plan) -> Scaling | None:
        """None if the plan has no scaling."""
        found, start = {}, 0
        for param in plan.params:
            if param.name in (MEAN, SCALE) and not param.trainable:
                found[param.name] = slice(start, start + param.size)
            start += param.size
        return cls(found[MEAN], found[SCALE]) if len(found) == 2 else None

    def is_identity(self, params: np.ndarray) -> bool:
        """Whether the model takes its input as it is."""
        return not params[self.mean].any() and bool((params[self.scale] == 1).all())

    def into(self, params: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """`params` (P,), copied, with these (columns,) numbers."""
        scaled: np.ndarray = params.copy()
        scaled[self.mean], scaled[self.scale] = mean, scale
        return scaled

    def keep(self, params: np.ndarray, of: np.ndarray) -> np.ndarray:
        """`params` (P,) with the scaling that `of` (P,) has, whatever updates say; copied if that changes it."""
        same = np.array_equal(params[self.mean], of[self.mean]) and np.array_equal(params[self.scale], of[self.scale])
        return params if same else self.into(params, of[self.mean], of[self.scale])
