"""What callers hand to a Trainer, checked and converted: params, x, y and the numbers that steer training.

Every mistake is named in an error that says what was given, what is expected and what to do. Nothing is computed here,
and arrays are never modified: one that is not C-contiguous float32 or int64 is converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .. import _core
from ..errors import OUT_OF_RANGE, DataError, UsageError
from . import packed
from . import targets as of_loss
from .plan import Plan
from .rows import Rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Targets: TypeAlias = "NDArray[np.int64] | NDArray[np.float32]"  # labels, or what the loss compares with


class Arrays:
    """The arrays of one plan, whose values have these `shapes`. `target_size` is the number of float targets of a
    sample, 0 if y is labels."""

    def __init__(self, plan: Plan, shapes: Sequence[tuple[int, ...]], target_size: int) -> None:
        self._plan, self._shapes, self._target_size = plan, shapes, target_size
        self._output = shapes[plan.loss_input]  # what the one loss compares with y
        self._bases: tuple[NDArray[Any], NDArray[Any]] | None = None  # that were read last for their rows
        self._read: tuple[NDArray[np.float32], Targets] | None = None  # what was read of them

    def read_rows(
        self, params: ArrayLike, x: ArrayLike | Rows, y: ArrayLike | Rows
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], Targets, int, NDArray[np.int64] | None]:
        """As `read`, and the rows of x and y that are wanted; None: all of them."""
        if isinstance(x, Rows) and isinstance(y, Rows) and len(x) and (whole := self._in_place(x, y)) is not None:
            return self.params(params), *whole, len(x), x.rows
        return *self.read(params, x, y), None

    def _in_place(self, x: Rows, y: Rows) -> tuple[NDArray[np.float32], Targets] | None:
        """All of x and y whose rows are wanted, as the core reads them, all flat. They are checked once, not for each
        training. None if they can't be read as they lie, or not all of them are as they should be: then a training
        reads its own rows alone."""
        bases = x.base, y.base
        if self._bases is None or self._bases[0] is not bases[0] or self._bases[1] is not bases[1]:
            self._bases, self._read = bases, self._read_whole(*bases) if x.lies_beside(y) else None
        return self._read if x.lies_beside(y) else None

    def _read_whole(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float32], Targets] | None:
        if x.dtype != np.float32 or not x.flags.c_contiguous:
            return None
        try:
            inputs, targets, _ = self._examples(x, y)
        except DataError:
            return None
        return inputs, targets

    def read(
        self, params: ArrayLike, x: ArrayLike, y: ArrayLike
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], Targets, int]:
        """Params (P,), x and y as the core reads them, all flat; and n."""
        inputs, targets, n = self._examples(x, y)
        return self.params(params), inputs, targets, n

    def _examples(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float32], Targets, int]:
        inputs, y = self.inputs(x), np.asarray(packed.flat_y(self._plan, self._shapes, y))
        if self._plan.losses:
            return inputs.reshape(-1), self._columns(y, len(inputs)), len(inputs)
        of_loss.check(self._plan.loss, self._output, y)
        read: Callable[..., Targets] = self._labels if self._target_size == 0 else self._targets
        return inputs.reshape(-1), read(y, len(inputs)), len(inputs)

    def params(self, params: ArrayLike, name: str = "params") -> NDArray[np.float32]:
        """(P,); `name` is what the caller calls it."""
        array = _float32(name, np.asarray(params))
        if array.shape != (self._plan.num_params,):
            expected = (self._plan.num_params,)
            raise DataError(f"{name} have shape {array.shape}, expected {expected}: use those of this model")
        return array

    def inputs(self, x: ArrayLike) -> NDArray[np.float32]:
        """(n, *input shape)"""
        array = np.asarray(packed.flat_x(self._plan, x))
        shape = tuple(self._plan.input_shape)
        if array.shape[1:] != shape or array.ndim == 0:
            expected = ", ".join(map(str, ("n", *shape)))
            text = f"x has shape {array.shape}, the model takes ({expected})"
            raise DataError(f"{text}: reshape x", text)
        if len(array) == 0:
            raise DataError("x has no samples: give at least one", "x has no samples")
        if self._plan.input_dtype == "int64" and array.dtype.kind not in "iu":
            text = f"x is {array.dtype}, the model takes integer tokens"
            raise DataError(f"{text}: encode x with the model's vocabulary", text)
        return _float32("x", array)

    def _labels(self, y: NDArray[Any], n: int) -> NDArray[np.int64]:
        shape = (n, *self._output[:-1])
        if y.shape != shape:
            text = f"y has shape {y.shape}, expected integer labels {shape}"
            raise DataError(f"{text}: reshape y", text)
        if y.dtype.kind not in "iub":
            text = f"y is {y.dtype}, loss {self._plan.loss!r} takes integer labels"
            raise DataError(f"{text}: cast y (kind=classes in a data SPEC), or load the model with loss='mse'", text)
        if y.dtype == np.uint64 and y.max() > np.iinfo(np.int64).max:
            text = f"label {y.max()} is out of range: map the labels to the model's classes"
            raise DataError(text, OUT_OF_RANGE)
        return np.ascontiguousarray(y, np.int64).reshape(-1)

    def _targets(self, y: NDArray[Any], n: int) -> NDArray[np.float32]:
        """Float targets, flat. With a single output, y may be (n,)."""
        shape = self._output
        if y.shape != (n, *shape) and not (y.shape == (n,) and self._target_size == 1):
            text = f"y has shape {y.shape}, expected {(n, *shape)}"
            raise DataError(f"{text}: reshape y", text)
        targets = _float32("y", y).reshape(-1)
        if self._plan.loss == "bce" and not (targets.min() >= 0 and targets.max() <= 1):
            reach = f"{targets.min()} to {targets.max()}"
            text = f"y reaches from {reach}, loss 'bce' takes 0 to 1: scale y, or use loss='mse'"
            raise DataError(text, "y is not within 0 to 1, as loss 'bce' takes it")
        return targets

    def _columns(self, y: NDArray[Any], n: int) -> NDArray[np.float32]:
        """The columns of several losses, flat. The core checks labels among them."""
        if y.shape != (n, self._target_size):
            text = f"y has shape {y.shape}, expected {(n, self._target_size)}: columns for {self._wanted()}"
            raise DataError(f"{text}; or give y as a dict by these names", text)
        targets, start = _float32("y", y), 0
        for head in self._plan.losses or []:
            width = math.prod(packed.columns(head, self._shapes[head.input]))
            part = targets[:, start : start + width]
            if head.loss == "bce" and not (part.min() >= 0 and part.max() <= 1):
                text = f"y of {head.name!r} is not within 0 to 1, as loss 'bce' takes it"
                raise DataError(f"{text}: scale it, or use 'mse' for this output", text)
            start += width
        return targets.reshape(-1)

    def _wanted(self) -> str:
        """The losses, each with what it takes of a sample."""
        words = []
        for head in self._plan.losses or []:
            width = math.prod(packed.columns(head, self._shapes[head.input]))
            words.append(f"{head.name!r} {width} {'label' if head.loss in of_loss.OF_CLASSES else 'number'}(s)")
        return ", ".join(words)


def _float32(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """`array` as C-contiguous finite float32; DataError that says where it is not finite."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} is {array.dtype}, expected real numbers: convert {name} to float32")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    if not _core.all_finite(result.reshape(-1)):
        where = np.argwhere(~np.isfinite(result))[0].tolist()
        text = f"{name}{where} is NaN, infinite or beyond float32"
        raise DataError(f"{text}: clean the data", text)
    return result


def check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value < 2**62:
        raise UsageError(f"{name} is {value!r}: give a whole number of 1 or more")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_rates(*, clip_norm: float | None, **rates: float) -> None:
    for name, value in rates.items():
        if not (_is_number(value) and 0 <= value < math.inf):
            raise UsageError(f"{name} is {value!r}: give a finite number of 0 or more")
    if clip_norm is not None and not (_is_number(clip_norm) and 0 < clip_norm < math.inf):
        raise UsageError(f"clip_norm is {clip_norm!r}: give a finite number above 0, or None")
