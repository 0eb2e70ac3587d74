"""Trainer: local training, gradients, evaluation and prediction of one plan, in the compiled core.

Design:
  a) Every mistake that a caller can make is found and named (arrays.py); the core checks labels and lengths.
  b) Inputs are never modified. Arrays that are not C-contiguous float32 (x, float targets, params) or int64
     (labels) are converted first. Tokens are whole numbers below 2^24, which float32 holds exactly.
  c) The GIL is released while the core works, so Trainers in several threads run at once. One Trainer does
     one call at a time; a second caller waits.

Not here: ONNX (onnx/), and what becomes of a delta (codecs/, protocol/).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

from .. import _core
from ..errors import EdgeFLError, ModelError, UsageError, nearest
from . import packed, targets
from .arrays import Arrays, check_count, check_rates
from .plan import Plan

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

LINE = 64  # bytes
OPTIMIZERS = ("sgd", "nesterov", "adam")
T = TypeVar("T")


class Cancelled(EdgeFLError):
    """The call was stopped by `cancel`; its work is discarded."""


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

    If the arena would exceed `max_arena_bytes`, the backward pass computes part of the forward pass again: slower, the
    same bits. If that is not enough, `batch` is halved until it fits. Batch normalization needs whole batches, so a
    plan that has it is not halved.

    `threads` (1 to 64) compute together, the caller's among them; the results have the same bits whatever their number.
    Nets whose steps are short gain nothing. Raises ModelError for a plan that is not valid, and for one that does not
    fit, with the bytes that it needs.
    """

    def __init__(self, plan: Plan, *, batch: int = 32, max_arena_bytes: int | None = None, threads: int = 1) -> None:
        if not isinstance(plan, Plan):
            raise UsageError(f"plan is {plan!r}: give the plan of edgefl.load(...)")
        check_count("batch", batch)
        if max_arena_bytes is not None:
            check_count("max_arena_bytes", max_arena_bytes)
        check_count("threads", threads)
        if threads > _core.max_threads():
            raise UsageError(f"threads is {threads}: give 1 to {_core.max_threads()}")
        self.plan = plan
        self._threads = threads
        self._max_arena_bytes = max_arena_bytes
        self._batch = _allowed_batch(plan, batch, max_arena_bytes)
        self._lock, self._making = threading.Lock(), threading.Lock()
        self._percent = 100
        self._part: Trainer | None = None
        self._held: _core.Net | None = None  # None while a part of the plan is trained: it has the memory then
        net = self._net
        self._shapes = net.shapes
        self._arrays = Arrays(plan, self._shapes, net.target_size)

    @property
    def _net(self) -> _core.Net:
        with self._making:
            if self._held is None:
                self._held = _core.Net(self.plan, self._batch, self._max_arena_bytes, self._threads)
                self._held.set_share(self._percent)
            return self._held

    @property
    def arena_bytes(self) -> int:
        """Bytes of memory that the core holds for this plan; 0 while it holds none, in `freezing`. Else they change
        only with `batch`."""
        return 0 if (net := self._held) is None else net.arena_bytes

    @property
    def computes_again(self) -> bool:
        """Whether a step computes activations again, because it may not keep them all."""
        return self._net.flops_again > 0

    def check_classes(self, labels: Sequence[str], of: Mapping[str, Sequence[str]] | None = None) -> None:
        """DataError if data whose labels have these names are not for this model; `of` several targets, each one's."""
        if labels and not self.plan.losses:
            targets.check_classes(self._shapes[self.plan.loss_input], len(labels))
        targets.check_classes_of(self.plan, of or {})

    @property
    def batch(self) -> int:
        """Samples that the arena holds at once."""
        return self._batch

    @property
    def threads(self) -> int:
        """Threads that compute; fewer than asked for where their memory would exceed `max_arena_bytes`."""
        return self._net.threads

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
        correction: ArrayLike | None = None,
    ) -> LocalResult:
        """Minibatch SGD from `params` (P,); `batch_size` "all" is all the data at once, in its given order.

        x (n, *input_shape), integers for a model of tokens; y integer labels (n,), or (n, T) with one for each step of
        a sequence, or float targets (n, *outputs). For a model with several inputs x may be a dict of arrays by name,
        with several losses y may be one; or they are the flat rows (n, columns) of these, labels as numbers. A step
        clips the gradient of the batch's mean loss to an L2 norm of `clip_norm`, adds `correction` (P,) (SCAFFOLD,
        Karimireddy et al. 2020, arXiv:1910.06378) and weight_decay * w + prox_mu * (w - params) (FedProx, Li et al.
        2020, arXiv:1812.06127), in this order, and moves w as PyTorch's SGD with momentum does, or as `optimizer`
        says: "nesterov", or "adam" (Kingma and Ba 2015) with beta1 = `momentum`, 0.9 if that is 0. The last batch may
        be short. Same seed, plan, `batch` and isa: same bits. Raises UsageError, DataError, Diverged and Cancelled.
        """
        if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
            raise UsageError(f"unknown optimizer {optimizer!r}: {nearest(optimizer, OPTIMIZERS)}")
        if optimizer == "adam":
            momentum = momentum or 0.9
        check_count("epochs", epochs)
        if not isinstance(batch_size, str) or batch_size != "all":
            check_count("batch_size", batch_size)
        if max_steps is not None:
            check_count("max_steps", max_steps)
        check_rates(lr=lr, momentum=momentum, weight_decay=weight_decay, prox_mu=prox_mu, clip_norm=clip_norm)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise UsageError(f"seed is {seed!r}: give a whole number")
        start, inputs, targets, n, rows = self._arrays.read_rows(params, x, y)
        linear = None if correction is None else self._arrays.params(correction, "correction")
        batch = n if batch_size == "all" else batch_size
        self._hold(min(batch, n))
        delta = _at_a_cache_line(len(start))
        with self._lock:
            done = _finished(self._net.fit(
                start, inputs, targets, delta, epochs=epochs, batch_size=batch, max_steps=max_steps or 0,
                seed=int(seed) % 2**64, lr=lr, momentum=momentum, weight_decay=weight_decay, prox_mu=prox_mu,
                clip_norm=clip_norm or 0.0, nesterov=optimizer == "nesterov", adam=optimizer == "adam",
                correction=linear, rows=rows,
            ))  # fmt: skip
        steps, loss = done
        if not (math.isfinite(loss) and _core.all_finite(delta)):
            raise Diverged(f"training diverged after {steps} steps: lower lr or standardise the features")
        return LocalResult(delta, n, steps, loss)

    def cancel(self) -> None:
        """Stop the call that runs in another thread: it raises Cancelled, within a second even if one op of one
        batch takes longer. Has no effect if none runs."""
        if (net := self._held) is not None:
            net.cancel()
        if (part := self._part) is not None:
            part.cancel()

    @contextmanager
    def freezing(self, indices: Collection[int]) -> Iterator[PartTrainer]:
        """A trainer of the same plan that leaves the params with these indices as they are. While the context lasts,
        `cancel` and `set_cpu_percent` mean it too, and it has the memory: a call of the whole trainer would take its
        own again, as the next one after the context does. UsageError, ModelError."""
        plan, order = self.plan.frozen(indices)
        with self._lock:  # until a call that runs has ended
            self._held = None
        part = Trainer(plan, batch=self._batch, max_arena_bytes=self._max_arena_bytes, threads=self._threads)
        part.set_cpu_percent(self._percent)
        self._part = part
        try:
            yield PartTrainer(part, self.plan, order)
        finally:
            self._part = None
            part._held = None  # its caller may still have it

    def set_cpu_percent(self, percent: int) -> None:
        """Compute for this percentage of the time from now on, in `fit`, `gradient` and `evaluate`, and rest else. The
        results are the same."""
        check_count("cpu_percent", percent)
        if percent > 100:
            raise UsageError(f"cpu_percent is {percent}: give 1 to 100")
        self._percent = percent
        if (net := self._held) is not None:
            net.set_share(percent)
        if (part := self._part) is not None:
            part.set_cpu_percent(percent)

    def gradient(self, params: ArrayLike, x: ArrayLike, y: ArrayLike) -> NDArray[np.float32]:
        """(P,) float32, the gradient of the mean loss over all of x; zero for state."""
        start, inputs, targets, n = self._arrays.read(params, x, y)
        self._hold(n)
        gradient = np.empty_like(start)
        with self._lock:
            _finished(self._net.gradient(start, inputs, targets, gradient))
        return gradient

    def evaluate(self, params: ArrayLike, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """Loss and accuracy over all of x."""
        start, inputs, targets, n = self._arrays.read(params, x, y)
        with self._lock:
            loss, accuracy = _finished(self._net.evaluate(start, inputs, targets))
        return Evaluation(loss, None if accuracy < 0 else accuracy, n)

    def predict(self, params: ArrayLike, x: ArrayLike) -> NDArray[np.float32]:
        """(n, *output shape) float32; with several losses (n, all their outputs), which `by_output` takes apart."""
        start, inputs = self._arrays.params(params), self._arrays.inputs(x)
        output = np.empty((len(inputs), *self._shapes[self.plan.output]), np.float32)
        with self._lock:
            _finished(self._net.predict(start, inputs.reshape(-1), output.reshape(-1)))
        return output

    def by_output(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """What `predict` has given for a plan with several losses, as an array (n, *shape) for each name."""
        return packed.by_output(self.plan, rows)

    def _hold(self, batch: int) -> None:
        """Batch normalization needs a batch whole: enlarge the arena to hold it, or raise ModelError."""
        with self._lock:
            if self._net.mixes_samples and batch > self._batch:
                _allowed_batch(self.plan, batch, self._max_arena_bytes)
                net = _core.Net(self.plan, batch, self._max_arena_bytes, self._threads)
                net.set_share(self._percent)
                self._held, self._batch = net, batch


class PartTrainer:
    """Trains some of a plan's params (Trainer.freezing). Vectors are in the order of the whole plan."""

    def __init__(self, trainer: Trainer, plan: Plan, order: list[int]) -> None:
        starts = np.cumsum([0, *(param.size for param in plan.params)])
        self._trainer = trainer
        self._order = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])

    def fit(self, params: NDArray[np.float32], x: ArrayLike, y: ArrayLike, **options: Any) -> LocalResult:
        """As Trainer.fit; the delta of what is frozen is 0, but for running statistics."""
        made = self._trainer.fit(params[self._order], x, y, **options)
        delta = np.empty_like(made.delta)
        delta[self._order] = made.delta
        return made._replace(delta=delta)


def forward_flops(plan: Plan) -> float:
    """Floating-point operations of one example on its way from the input to the loss: 2 a multiply-add. Training one
    takes about three times as many, since each of the two gradients of an op takes as many as the op. ModelError."""
    return _core.plan_flops(plan)


def _finished(result: T | None) -> T:
    """What the core has computed; Cancelled for None and False."""
    if not result:
        raise Cancelled("training was cancelled: start the round's training again to take part")
    return result


def _allowed_batch(plan: Plan, batch: int, max_arena_bytes: int | None) -> int:
    """`batch`, or the largest of its halves, quarters, ... whose arena is allowed; ModelError if none is. What can't be
    kept is computed again, which gives the same bits; a smaller batch does not."""
    if max_arena_bytes is None:
        return batch
    _, needed, whole = _core.plan_needs(plan, batch)
    while needed > max_arena_bytes and batch > 1 and not whole:
        batch //= 2
        _, needed, _ = _core.plan_needs(plan, batch)
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
    start = -room.__array_interface__["data"][0] % LINE
    return room[start : start + 4 * size].view(np.float32)
