"""Trainer: local training, gradients, evaluation and prediction of one plan, in the compiled core.

Design:
  a) Every mistake that a caller can make is found here and named; the core checks labels and lengths.
  b) Inputs are never modified. Arrays that are not C-contiguous float32 (x, float targets, params) or int64
     (labels) are converted first. Tokens are whole numbers below 2^24, which float32 holds exactly.
  c) The GIL is released while the core works, so Trainers in several threads run at once. One Trainer does
     one call at a time; a second caller waits.

Not here: ONNX (onnx/), and what becomes of a delta (codecs/, protocol/).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..errors import DataError, EdgeFLError, ModelError, UsageError, nearest
from .plan import Plan

LINE = 64  # bytes
Targets: TypeAlias = NDArray[np.int64] | NDArray[np.float32]  # labels, or what the loss compares with
OPTIMIZERS = ("sgd", "nesterov", "adam")


class Cancelled(EdgeFLError):
    """`fit` was stopped by `cancel`; its work is discarded."""


class Diverged(EdgeFLError):
    """Training ended in NaN or infinity."""


class LocalResult(NamedTuple):
    """What a device learned. `delta` (P,) float32 is local - global; `loss` the mean over the last epoch."""

    delta: NDArray[np.float32]
    num_examples: int
    steps: int
    loss: float


class Evaluation(NamedTuple):
    """Mean loss, and the share of right answers: by argmax if y is labels (cross_entropy, hinge, focal), at 0.5 for
    bce, None for mse, l1 and huber."""

    loss: float
    accuracy: float | None
    num_examples: int


class Trainer:
    """Runs a plan. `batch` is how many samples the arena holds; larger batches go through it in pieces.

    If the arena would exceed `max_arena_bytes`, `batch` is halved until it fits. Batch normalization needs whole
    batches, so a plan that has it is not halved. Raises ModelError for a plan that is not valid, and for one that does
    not fit, with the bytes that it needs.
    """

    def __init__(self, plan: Plan, *, batch: int = 32, max_arena_bytes: int | None = None) -> None:
        if not isinstance(plan, Plan):
            raise UsageError(f"plan is {plan!r}: give the plan of edgefl.load(...)")
        _check_count("batch", batch)
        if max_arena_bytes is not None:
            _check_count("max_arena_bytes", max_arena_bytes)
        self.plan = plan
        self._max_arena_bytes = max_arena_bytes
        self._batch = _allowed_batch(plan, batch, max_arena_bytes)
        self._net = _core.Net(plan, self._batch, max_arena_bytes)
        self._lock = threading.Lock()

    @property
    def arena_bytes(self) -> int:
        """Bytes of memory that the core holds for this plan. They change only with `batch`."""
        return self._net.arena_bytes

    @property
    def batch(self) -> int:
        """Samples that the arena holds at once."""
        return self._batch

    @property
    def isa(self) -> str:
        """The instruction set in use: "baseline", "avx2", "avx512" or "neon"."""
        return _core.isa()

    def fit(
        self,
        params: ArrayLike,
        x: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int | Literal["all"] = 10,
        lr: float = 0.1,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        prox_mu: float = 0.0,
        clip_norm: float | None = None,
        max_steps: int | None = None,
        seed: int = 0,
        optimizer: str = "sgd",
    ) -> LocalResult:
        """Minibatch SGD from `params` (P,); `batch_size` "all" is all the data at once, in its given order.

        x (n, *input_shape), integers where the model takes tokens; y integer labels (n,), or (n, T) where every
        step of a sequence has its own, or (n, *outputs) float targets. A step clips the gradient of the batch's
        mean loss to an L2 norm of `clip_norm`, adds weight_decay * w + prox_mu * (w - params) (FedProx, Li et al.
        2020, arXiv:1812.06127), and moves w as PyTorch's SGD with momentum does, or with
        `optimizer` "nesterov", or "adam" (Kingma and Ba 2015), whose beta1 is `momentum` or else 0.9. The last
        batch may be short. Same seed, plan, `batch` and isa: same bits. Raises UsageError, DataError, Diverged and
        Cancelled.
        """
        if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
            raise UsageError(f"unknown optimizer {optimizer!r}: {nearest(optimizer, OPTIMIZERS)}")
        if optimizer == "adam":
            momentum = momentum or 0.9
        _check_count("epochs", epochs)
        if not isinstance(batch_size, str) or batch_size != "all":
            _check_count("batch_size", batch_size)
        if max_steps is not None:
            _check_count("max_steps", max_steps)
        _check_rates(lr=lr, momentum=momentum, weight_decay=weight_decay, prox_mu=prox_mu, clip_norm=clip_norm)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise UsageError(f"seed is {seed!r}: give a whole number")
        start, inputs, targets, n = self._data(params, x, y)
        batch = n if batch_size == "all" else batch_size
        self._hold(min(batch, n))
        delta = _at_a_cache_line(len(start))
        with self._lock:
            done = self._net.fit(
                start,
                inputs,
                targets,
                delta,
                epochs=epochs,
                batch_size=batch,
                max_steps=max_steps or 0,
                seed=int(seed) % 2**64,
                lr=lr,
                momentum=momentum,
                weight_decay=weight_decay,
                prox_mu=prox_mu,
                clip_norm=clip_norm or 0.0,
                nesterov=optimizer == "nesterov",
                adam=optimizer == "adam",
            )
        if done is None:
            raise Cancelled("training was cancelled: start the round's training again to take part")
        steps, loss = done
        if not (math.isfinite(loss) and _core.all_finite(delta)):
            raise Diverged(f"training diverged after {steps} steps: lower lr or standardise the features")
        return LocalResult(delta, n, steps, loss)

    def cancel(self) -> None:
        """Stop a `fit` that runs in another thread before its next step. Has no effect if none runs."""
        self._net.cancel()

    def gradient(self, params: ArrayLike, x: ArrayLike, y: ArrayLike) -> NDArray[np.float32]:
        """(P,) float32, the gradient of the mean loss over all of x; zero for state."""
        start, inputs, targets, n = self._data(params, x, y)
        self._hold(n)
        gradient = np.empty_like(start)
        with self._lock:
            self._net.gradient(start, inputs, targets, gradient)
        return gradient

    def evaluate(self, params: ArrayLike, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """Loss and accuracy over all of x."""
        start, inputs, targets, n = self._data(params, x, y)
        with self._lock:
            loss, accuracy = self._net.evaluate(start, inputs, targets)
        return Evaluation(loss, None if accuracy < 0 else accuracy, n)

    def predict(self, params: ArrayLike, x: ArrayLike) -> NDArray[np.float32]:
        """(n, *output shape) float32."""
        start, inputs = self._params(params), self._inputs(x)
        output = np.empty((len(inputs), *self._net.shapes[self.plan.output]), np.float32)
        with self._lock:
            self._net.predict(start, inputs.reshape(-1), output.reshape(-1))
        return output

    def _hold(self, batch: int) -> None:
        """Batch normalization needs a batch whole: enlarge the arena to hold it, or raise ModelError."""
        with self._lock:
            if self._net.mixes_samples and batch > self._batch:
                _allowed_batch(self.plan, batch, self._max_arena_bytes)
                self._net = _core.Net(self.plan, batch, self._max_arena_bytes)
                self._batch = batch

    def _data(
        self, params: ArrayLike, x: ArrayLike, y: ArrayLike
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], Targets, int]:
        """Params (P,), x and y as the core takes them, all flat; and n."""
        inputs = self._inputs(x)
        read: Callable[..., Targets] = self._labels if self._net.target_size == 0 else self._targets
        targets = read(np.asarray(y), len(inputs))
        return self._params(params), inputs.reshape(-1), targets, len(inputs)

    def _params(self, params: ArrayLike) -> NDArray[np.float32]:
        array = _float32("params", np.asarray(params))
        if array.shape != (self.plan.num_params,):
            expected = (self.plan.num_params,)
            raise DataError(f"params have shape {array.shape}, expected {expected}: use those of this model")
        return array

    def _inputs(self, x: ArrayLike) -> NDArray[np.float32]:
        array = np.asarray(x)
        shape = tuple(self.plan.input_shape)
        if array.shape[1:] != shape or array.ndim == 0:
            expected = ", ".join(map(str, ("n", *shape)))
            raise DataError(f"x has shape {array.shape}, the model takes ({expected}): reshape x")
        if len(array) == 0:
            raise DataError("x has no samples: give at least one")
        if self.plan.input_dtype == "int64" and array.dtype.kind not in "iu":
            raise DataError(f"x is {array.dtype}, the model takes integer tokens: encode x with the model's vocabulary")
        return _float32("x", array)

    def _labels(self, y: NDArray[Any], n: int) -> NDArray[np.int64]:
        shape = (n, *self._net.shapes[self.plan.loss_input][:-1])
        if y.shape != shape:
            raise DataError(f"y has shape {y.shape}, expected integer labels {shape}: reshape y")
        if y.dtype.kind not in "iub":
            takes = f"loss {self.plan.loss!r} takes integer labels"
            raise DataError(f"y is {y.dtype}, {takes}: cast y, or load the model with loss='mse'")
        if y.dtype == np.uint64 and y.max() > np.iinfo(np.int64).max:
            raise DataError(f"label {y.max()} is out of range: map the labels to the model's classes")
        return np.ascontiguousarray(y, np.int64).reshape(-1)

    def _targets(self, y: NDArray[Any], n: int) -> NDArray[np.float32]:
        """Float targets, flat. With a single output, y may be (n,)."""
        shape = self._net.shapes[self.plan.loss_input]
        if y.shape != (n, *shape) and not (y.shape == (n,) and self._net.target_size == 1):
            raise DataError(f"y has shape {y.shape}, expected {(n, *shape)}: reshape y")
        targets = _float32("y", y).reshape(-1)
        if self.plan.loss == "bce" and not (targets.min() >= 0 and targets.max() <= 1):
            reach = f"{targets.min()} to {targets.max()}"
            raise DataError(f"y reaches from {reach}, loss 'bce' takes 0 to 1: scale y, or use loss='mse'")
        return targets


def _allowed_batch(plan: Plan, batch: int, max_arena_bytes: int | None) -> int:
    """`batch`, or the largest of its halves, quarters, ... whose arena is allowed; ModelError if none is."""
    if max_arena_bytes is None:
        return batch
    needed, whole = _core.plan_needs(plan, batch)
    while needed > max_arena_bytes and batch > 1 and not whole:
        batch //= 2
        needed, _ = _core.plan_needs(plan, batch)
    if needed > max_arena_bytes:
        if whole and batch > 1:
            what, advice = f"batch normalization sees all {batch} samples of a batch at once and", "lower batch_size"
        else:
            what, advice = "the model", "use a smaller model"
        allowed = f"{max_arena_bytes} are allowed: {advice} or raise max_arena_bytes"
        raise ModelError(f"{what} needs {needed} bytes to train, {allowed}")
    return batch


def _at_a_cache_line(size: int) -> NDArray[np.float32]:
    """(size,) float32, uninitialized, at the start of a cache line. The core trains in it: vector loads across two
    lines would cost about 6 %."""
    room = np.empty(4 * size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + 4 * size].view(np.float32)


def _float32(name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    """`array` as C-contiguous finite float32; DataError that says where it is not finite."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name} is {array.dtype}, expected real numbers: convert {name} to float32")
    with np.errstate(over="ignore"):
        result = np.ascontiguousarray(array, np.float32).reshape(array.shape)
    if not _core.all_finite(result.reshape(-1)):
        where = np.argwhere(~np.isfinite(result))[0].tolist()
        raise DataError(f"{name}{where} is NaN, infinite or beyond float32: clean the data")
    return result


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value < 2**62:
        raise UsageError(f"{name} is {value!r}: give a whole number of 1 or more")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _check_rates(*, clip_norm: float | None, **rates: float) -> None:
    for name, value in rates.items():
        if not (_is_number(value) and 0 <= value < math.inf):
            raise UsageError(f"{name} is {value!r}: give a finite number of 0 or more")
    if clip_norm is not None and not (_is_number(clip_norm) and 0 < clip_norm < math.inf):
        raise UsageError(f"clip_norm is {clip_norm!r}: give a finite number above 0, or None")
