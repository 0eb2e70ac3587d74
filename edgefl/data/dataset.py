"""Dataset: examples in memory, checked when it is made: equal lengths, known types, finite numbers, not empty.

Not here: reading files (one module a reader), holding out and scaling (finish.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.targets import OF_CLASSES
from ..errors import DataError
from .blocks import Blocks, join_named, ordered
from .tally import Tally

if TYPE_CHECKING:
    from ..core.plan import Head, Plan

NONE_LEFT_OUT = Tally()


class Series(NamedTuple):
    """What windows over time have to do with each other: each shares rows with the `overlap` windows after it.
    `channels_first`: the model wants (channels, time), and not (time, channels)."""

    overlap: int
    channels_first: bool


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples to train on, and perhaps to evaluate on.

    x_train       (n, ...) float32, or int64 for tokens: int64 stays int64, other numbers become float32
    y_train       (n, ...) int64 labels or float32 targets: whole numbers become int64, floats float32
    x_test        (m, ...) like x_train, or None
    y_test        (m, ...) like y_train, or None
    device_train  (n,) int64, the device that each training example belongs to (the natural split), or None
    labels        the names of the classes 0, 1, 2, ..., if the reader knows them
    target_labels of several targets: the same for each that has such names, by the target's
    columns       the names of the features, if they have some
    tally         how many rows were left out
    inputs        the names and widths of the columns of x, if it is several arrays joined (blocks.py)
    targets       the same of y; x_train, x_test, y_train and y_test may be given as such a dict of arrays
    gaps, series  for finish.py, which takes them away: x has NaN where a mean is to be put; examples are windows

    Raises DataError for anything else, naming the part and what to do.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    device_train: np.ndarray | None = None
    name: str = "data"
    labels: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    tally: Tally = NONE_LEFT_OUT
    inputs: Blocks = ()
    targets: Blocks = ()
    gaps: bool = False
    series: Series | None = None
    target_labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._join()
        sound = self._sound_pair("train", self.x_train, self.y_train)
        if self.x_test is not None and self.y_test is not None:
            sound |= self._sound_pair("test", self.x_test, self.y_test)
            for axis in "xy":
                self._check_alike(axis, sound[f"{axis}_train"], sound[f"{axis}_test"])
        elif self.x_test is not None or self.y_test is not None:
            text = "a test part needs both x_test and y_test"
            raise DataError(f"{self.name}: {text}: give both or none", text)
        if self.device_train is not None:
            sound["device_train"] = self._sound_devices(self.device_train, len(sound["x_train"]))
        for field, value in sound.items():
            object.__setattr__(self, field, value)

    def _join(self) -> None:
        """Dicts of arrays become columns, those of the test part in the order of the training part."""
        parts = {f"{axis}{part}": getattr(self, f"{axis}{part}") for axis in "xy" for part in ("_train", "_test")}
        dicts = {f"{part}.{name}": array for part, value in parts.items() if isinstance(value, Mapping)
                 for name, array in value.items()}  # fmt: skip
        if not dicts:
            return
        blocks = join_named(dicts)
        for name, value in dicts.items():
            if name in parts:
                object.__setattr__(self, name, value)
        for field, axis in (("inputs", "x"), ("targets", "y")):
            if axis in blocks:
                object.__setattr__(self, field, blocks[axis])

    def _sound_pair(self, part: str, x: Any, y: Any) -> dict[str, np.ndarray]:
        """x and y of one part, converted and checked, by field name."""
        x = _numbers(self.name, f"x_{part}", x)
        y = _numbers(self.name, f"y_{part}", y)
        # Narrower integers are pixels or raw samples far more often than tokens.
        alike = y is x  # the features are the targets
        x = _finite(self.name, f"x_{part}", x, np.int64 if x.dtype == np.int64 else np.float32, gaps=self.gaps)
        if alike:
            return {f"x_{part}": x, f"y_{part}": x}
        y = _finite(self.name, f"y_{part}", y, np.float32 if y.dtype.kind == "f" else np.int64)
        if len(x) != len(y):
            text = f"x_{part} has {len(x)} examples and y_{part} {len(y)}"
            raise DataError(f"{self.name}: {text}: give one target an example", text)
        return {f"x_{part}": x, f"y_{part}": y}

    def _check_alike(self, axis: str, train: np.ndarray, test: np.ndarray) -> None:
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            text = f"{axis}_train is {train.dtype} {train.shape} and {axis}_test {test.dtype} {test.shape}"
            raise DataError(f"{self.name}: {text}: only the first number may differ", text)

    def _sound_devices(self, devices: Any, n: int) -> np.ndarray:
        numbers: np.ndarray = np.asarray(devices)
        if numbers.dtype.kind not in "iu" or numbers.shape != (n,):
            raise DataError(
                f"{self.name}: device_train is {numbers.dtype} {numbers.shape}: "
                f"give one whole number an example, shape ({n},)",
                f"device_train has not one whole number for each of {n} examples",
            )
        return numbers.astype(np.int64, copy=False)


def _numbers(name: str, part: str, values: Any) -> np.ndarray:
    """`values` as an array of numbers that is not empty."""
    what = f"{name}: {part}"
    try:
        array = np.asarray(values)
    except ValueError as error:  # ragged nested lists
        text = f"{what} is not an array: {error}: give every example the same shape"
        raise DataError(text, f"{part}: not every example has the same shape") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} holds {array.dtype} values: give numbers only", f"{part}: not numbers")
    if array.size == 0 or array.ndim == 0:
        raise DataError(f"{what} is empty, shape {array.shape}: give at least one example", f"{part} is empty")
    return array


def _finite(name: str, part: str, array: np.ndarray, dtype: type[np.generic], *, gaps: bool = False) -> np.ndarray:
    """`array` contiguous and of `dtype`, every value finite, or NaN if `gaps` are allowed."""
    with np.errstate(over="ignore"):  # what does not fit float32 is inf, refused below
        array = np.ascontiguousarray(array, dtype=dtype)
    # min and max keep a NaN, fmin and fmax do not. np.isfinite would need a temporary a quarter as large as the data.
    least, most = (np.fmin, np.fmax) if gaps else (np.minimum, np.maximum)
    ends = [float(end.reduce(array, axis=None)) for end in (least, most)]
    if not all(math.isfinite(end) or (gaps and math.isnan(end)) for end in ends):
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        text = f"{part}: example {row} holds NaN or infinity, or exceeds float32"
        raise DataError(f"{name}: {text}: repair or drop it", text)
    return array


def from_arrays(arrays: Mapping[str, Any], name: str, *, tally: Tally = NONE_LEFT_OUT, gaps: bool = False) -> Dataset:
    """Dataset from x_train, y_train[, x_test, y_test][, device_train], or from x, y[, device_train]."""
    suffix = "_train" if "x_train" in arrays or "y_train" in arrays else ""
    for key in (f"x{suffix}", f"y{suffix}"):
        if key not in arrays:
            raise DataError(
                f"{name} has no {key!r} but {', '.join(sorted(arrays)) or 'nothing'}: "
                "name the arrays x_train and y_train, or x and y",
                f"there is no {key!r}",
            )
    optional = {key: arrays[key] for key in ("x_test", "y_test", "device_train") if key in arrays}
    optional |= {key: arrays[key] for key in ("inputs", "targets") if isinstance(arrays.get(key), tuple)}
    return Dataset(arrays[f"x{suffix}"], arrays[f"y{suffix}"], name=name, tally=tally, gaps=gaps, **optional)


def fit_plan(dataset: Dataset, plan: Plan) -> Dataset:
    """As `fit_shape`; columns of x and y that have names are put in the order of the plan's inputs and losses.
    DataError."""
    names, widths = [each.name for each in plan.inputs or []], [each.size for each in plan.inputs or []]
    heads = [head.name for head in plan.losses or []]
    changed: dict[str, Any] = {}
    for part in ("train", "test"):
        if (x := getattr(dataset, f"x_{part}")) is not None:
            changed[f"x_{part}"] = ordered("x", x, dataset.inputs, names, widths)
        if (y := getattr(dataset, f"y_{part}")) is not None:
            own = {block.name: block.width for block in dataset.targets}
            wide = [_width(head, own.get(head.name, 0)) for head in plan.losses or []]
            changed[f"y_{part}"] = ordered("y", y, dataset.targets, heads, wide)
    if any(value is not getattr(dataset, name) for name, value in changed.items()):
        dataset = dataclasses.replace(dataset, **changed, inputs=(), targets=())
    return fit_shape(dataset, plan.input_shape)


def _width(head: Head, given: int) -> int:
    """Columns of y for a loss; `given`, if the plan alone does not tell: labels lack one of several axes."""
    if head.loss in OF_CLASSES:
        return 1 if len(head.shape) == 1 else given
    return math.prod(head.shape)


def fit_shape(dataset: Dataset, input_shape: Sequence[int]) -> Dataset:
    """`dataset` with each example of x in the model's `input_shape`; DataError when the sizes differ.

    Only the shape changes, as between (n, 784) and (n, 1, 28, 28): values stay in row-major order.
    """
    shape = tuple(input_shape)
    given = dataset.x_train.shape[1:]
    if math.prod(given) != math.prod(shape):
        text = f"an example has shape {given}, {math.prod(given)} values, and the model's input {shape}"
        remedy = "choose other features or another model"
        raise DataError(f"{dataset.name}: {text}, {math.prod(shape)}: {remedy}", f"{text}, {math.prod(shape)}")
    _refuse_turned(dataset.name, given, shape)
    x_train = dataset.x_train.reshape(-1, *shape)
    x_test = None if dataset.x_test is None else dataset.x_test.reshape(-1, *shape)
    return dataclasses.replace(dataset, x_train=x_train, x_test=x_test)


def _refuse_turned(name: str, given: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """DataError if both are the same table with rows and columns exchanged: a reshape would mix them up."""
    one, other = ([size for size in sizes if size != 1] for sizes in (given, shape))
    if len(one) == 2 and one[0] != one[1] and one == other[::-1]:
        text = f"an example has shape {given} and the model's input is {shape}, the other way round"
        raise DataError(f"{name}: {text}: add channels=first to the SPEC, or transpose the arrays", text)
