"""Packed rows: the several inputs of a model as columns of one x, its several outputs as columns of one y.

A plan has one input and one y (plan.py, f). Callers may give each as a dict of arrays by name, or x as a sequence in
the order of the file's inputs. Here they become the flat rows that the core reads, and the outputs become a dict again.

Not here: what the numbers may be (arrays.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import DataError, nearest
from .plan import Head, Input, Plan
from .targets import OF_CLASSES, WHOLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

F = TypeVar("F", np.float32, np.float64)
Shapes = Sequence[tuple[int, ...]]  # of a plan's values, a sample


def flat_x(plan: Plan, x: Any) -> Any:
    """x as the plan's one array (n, *input_shape): as it is, unless it is a dict or a sequence of the inputs."""
    if not plan.inputs:
        if isinstance(x, Mapping):
            raise DataError("x is a dict, and the model has one input: give its array")
        return x
    if isinstance(x, Mapping):
        _check_names("x", "inputs", x, [each.name for each in plan.inputs])
        return _joined("x", [_block(each, x[each.name]) for each in plan.inputs])
    if isinstance(x, list | tuple) and len(x) == len(plan.inputs) and all(isinstance(part, np.ndarray) for part in x):
        return _joined("x", [_block(each, part) for each, part in zip(plan.inputs, x, strict=True)])
    return x


def _block(declared: Input, values: Any) -> NDArray[np.float32]:
    """(n, size) of one input."""
    array, shape = np.asarray(values), tuple(declared.shape)
    if array.ndim == 0 or array.shape[1:] != shape:
        text = f"x[{declared.name!r}] has shape {array.shape}, the model takes {('n', *shape)}"
        raise DataError(f"{text}: reshape it", text)
    if declared.dtype == "int64" and array.dtype.kind not in "iu":
        text = f"x[{declared.name!r}] is {array.dtype}, the model takes integer tokens"
        raise DataError(f"{text}: encode it with the model's vocabulary", text)
    return _as_float32(f"x[{declared.name!r}]", array).reshape(len(array), -1)


def flat_y(plan: Plan, shapes: Shapes, y: Any) -> Any:
    """y as the plan's one array: as it is, unless it is a dict of the outputs."""
    if not isinstance(y, Mapping):
        return y
    if not plan.losses:
        raise DataError("y is a dict, and the model is trained on one output: give its array")
    _check_names("y", "trained outputs", y, [head.name for head in plan.losses])
    return _joined("y", [_targets(head, shapes[head.input], y[head.name]) for head in plan.losses])


def columns(head: Head, output: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what y holds of a sample for this loss, whose output has the shape `output`: labels lack the
    axis of classes."""
    return output[:-1] if head.loss in OF_CLASSES else output


def _targets(head: Head, output: tuple[int, ...], values: Any) -> NDArray[np.float32]:
    """(n, columns) of one output."""
    array, shape = np.asarray(values), columns(head, output)
    if array.shape[1:] != shape and not (array.ndim == 1 and math.prod(shape) == 1):
        kind = "integer labels" if head.loss in OF_CLASSES else "numbers"
        text = f"y[{head.name!r}] has shape {array.shape}, loss {head.loss!r} takes {kind} {('n', *shape)}"
        raise DataError(f"{text}: reshape it", text)
    if head.loss in OF_CLASSES and array.dtype.kind not in WHOLE:
        text = f"y[{head.name!r}] is {array.dtype}, loss {head.loss!r} takes integer labels"
        raise DataError(f"{text}: cast it, or load the model with another loss for this output", text)
    return _as_float32(f"y[{head.name!r}]", array).reshape(len(array), -1)


def by_output(plan: Plan, rows: NDArray[F]) -> dict[str, NDArray[F]]:
    """What `predict` has computed, (n, all outputs), as one array (n, *shape) for each loss of the plan."""
    parts: dict[str, NDArray[F]] = {}
    start = 0
    for head in plan.losses or []:
        end = start + math.prod(head.shape)
        parts[head.name] = rows[:, start:end].reshape(len(rows), *head.shape)
        start = end
    return parts


def drawn_x(plan: Plan, rng: np.random.Generator, n: int) -> NDArray[Any]:
    """(n, *input_shape) of random numbers, and of tokens where the plan takes these."""
    smallest = min((plan.params[node.params[0]].shape[0] for node in plan.nodes if node.op == "embedding"), default=1)
    if plan.input_dtype == "int64":
        return rng.integers(0, smallest, (n, *plan.input_shape))
    x: NDArray[Any] = rng.normal(size=(n, *plan.input_shape))
    start = 0
    for each in plan.inputs or []:
        if each.dtype == "int64":
            x[:, start : start + each.size] = rng.integers(0, smallest, (n, each.size))
        start += each.size
    return x


def drawn_y(plan: Plan, shapes: Shapes, rng: np.random.Generator, n: int) -> NDArray[Any]:
    """Random labels, or zeros and ones as numbers, as the plan's losses take them."""
    if not plan.losses:
        return _drawn(plan.loss, shapes[plan.loss_input], rng, n)
    blocks = [_drawn(head.loss, shapes[head.input], rng, n).reshape(n, -1) for head in plan.losses]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _drawn(loss: str, output: tuple[int, ...], rng: np.random.Generator, n: int) -> NDArray[Any]:
    if loss in OF_CLASSES:
        return rng.integers(0, output[-1], (n, *output[:-1]))
    return rng.integers(0, 2, (n, *output)).astype(np.float64)


def _check_names(what: str, of: str, given: Mapping[Any, Any], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if missing or unknown:
        hint = f"{unknown[0]!r}: {nearest(str(unknown[0]), wanted)}" if unknown else f"{missing[0]!r} is missing"
        text = f"{what} has the keys {', '.join(map(repr, given))}, and the model's {of} are {', '.join(wanted)}"
        raise DataError(f"{text}: {hint}", text)


def _joined(what: str, blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    lengths = {len(block) for block in blocks}
    if len(lengths) > 1:
        text = f"the arrays of {what} have {', '.join(map(str, sorted(lengths)))} samples"
        raise DataError(f"{text}: give all of them the same", text)
    return np.concatenate(blocks, axis=1)


def _as_float32(what: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} is {array.dtype}, expected real numbers: convert it to float32")
    with np.errstate(over="ignore"):  # becomes infinite, and is found where all of x is checked
        return np.ascontiguousarray(array, np.float32).reshape(array.shape)
