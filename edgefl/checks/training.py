"""Examples against the model, and a timed step of training on a scratch copy, with the codec that follows it.

The params are drawn here: a step takes as long with any, and none of a federation's need be fetched. No value of the
examples is in what these checks say.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np

from .. import _core
from ..codecs import Codec
from ..core.packed import drawn_x, drawn_y
from ..core.plan import Plan
from ..core.trainer import Diverged, Trainer
from ..data import Dataset, fit_plan
from ..device.owner.effort import batches_of, trained_on
from ..device.training import arena_batch
from ..errors import DataError, EdgeFLError
from ..plural import plural
from ..protocol.manifest import Manifest
from .report import Finding, ok, problem, warning

SAMPLE = 256  # examples that go through the model, with those of the lowest and highest label
STEPS = 5
UNEVEN = 1000.0  # times the spread of another column, from which on training suffers
FAR = 100.0  # of a value, from which on it does, too


def fitted(dataset: Dataset, plan: Plan) -> Dataset:
    """The examples in the shape of the model's input; DataError unless the model takes them."""
    found = fit_plan(dataset, plan)
    chosen = _chosen(found)
    try:
        Trainer(plan, batch=1).evaluate(_params(plan), found.x_train[chosen], found.y_train[chosen])
    except DataError as error:  # which counts the examples that were chosen
        text = re.sub(r"(?<=\bsample )\d+", lambda number: str(chosen[int(number[0])]), str(error))
        raise DataError(text, error.safe) from None
    return found


def shape(dataset: Dataset, plan: Plan) -> Iterator[Finding]:
    """Whether the model takes the examples: columns, kind, labels or targets."""
    try:
        fitted(dataset, plan)
    except DataError as error:
        text, _, todo = str(error).rpartition(": ")
        yield problem(text or str(error), todo if text else "compare the data with the model: edgefl inspect")
        return
    what = f"{plural(len(dataset.x_train), 'example')} of shape {tuple(plan.input_shape)}, loss {plan.loss_text}"
    yield ok(f"{what}: the model takes them")


def ranges(dataset: Dataset) -> Iterator[Finding]:
    """What makes training slow or useless: columns of very different spread, one label only."""
    x, y = dataset.x_train, dataset.y_train
    if x.dtype.kind == "f" and x.ndim == 2 and not dataset.inputs:  # tokens may be among several
        yield from _columns(x[:50_000].astype(np.float64))
    if y.dtype.kind in "iu":
        labels = len(np.unique(y))
        if labels == 1:
            yield warning("all examples have the same label", "see whether the target is the right column")
        else:
            yield ok(f"{labels} different labels")


def step(
    manifest: Manifest,
    dataset: Dataset,
    *,
    arena_bytes: int | None = None,
    threads: int = 1,
    deadline_s: float | None = None,
) -> Iterator[Finding]:
    """A few steps of training, timed, and the codec on what they have learned. Raises ModelError."""
    plan, train = manifest.plan, manifest.train
    examples = fit_plan(dataset, plan)
    n = len(examples.x_train)
    batch = n if train.batch_size == "all" else min(train.batch_size, n)
    trainer = Trainer(plan, batch=arena_batch(train.batch_size), max_arena_bytes=arena_bytes, threads=threads)
    x, y, params = examples.x_train[: STEPS * batch], examples.y_train[: STEPS * batch], _params(plan)
    trainer.evaluate(params, x[:1], y[:1])  # what is only done once
    began = time.perf_counter()
    try:
        result = trainer.fit(
            params, x, y, batch_size=train.batch_size, lr=train.lr, optimizer=train.optimizer,
            clip_norm=train.clip_norm, max_steps=STEPS,
        )  # fmt: skip
    except Diverged:
        text = f"training ends in numbers that are not finite, at lr {train.lr:g}"
        yield warning(text, "standardise the columns, or lower train.lr in aggregator.toml")
        return
    step_s = (time.perf_counter() - began) / result.steps
    steps = trained_on(manifest, n) * batches_of(manifest, n) / n
    round_s = step_s * steps
    text = f"a step of {batch} examples takes {1000 * step_s:.3g} ms, a round of {steps:.0f} steps about"
    text += f" {round_s:.3g} s; {trainer.arena_bytes / 2**20:.3g} MB"
    if trainer.computes_again:
        text += f", activations computed again since max_arena_mb allows {(arena_bytes or 0) / 2**20:.3g}"
    if deadline_s is not None and round_s > deadline_s:
        todo = "raise rounds.deadline_s, lower train.epochs or set train.max_steps in aggregator.toml"
        yield warning(f"{text}; rounds last {deadline_s:g} s", todo)
    else:
        yield ok(text)
    sides = dict.fromkeys(manifest.sent_sides, result.delta)  # as long, and about as large
    yield codec(manifest.update_codec, manifest.stack(result.delta, sides))


def codec(codec: Codec, delta: np.ndarray) -> Finding:
    """An update, encoded and decoded."""
    began = time.perf_counter()
    try:
        payload = codec.encode(delta)
        decoded = codec.decode(payload, len(delta))
    except EdgeFLError as error:
        return problem(f"the codec fails: {error}", "choose another [codec] name in aggregator.toml")
    seconds = time.perf_counter() - began
    if not np.isfinite(decoded).all():
        return problem("the codec gives numbers back that are not finite", "report this as a bug of EdgeFL")
    smaller = 4 * len(delta) / max(1, len(payload))
    return ok(f"an update of {len(payload)} bytes, {smaller:.3g} times less than float32, in {1000 * seconds:.3g} ms")


def random_examples(plan: Plan, n: int) -> Dataset:
    """Examples that fit a plan, for an aggregator without test data."""
    rng = np.random.default_rng(0)
    x, target = drawn_x(plan, rng, n), drawn_y(plan, _core.Net(plan, 1).shapes, rng, n)
    return Dataset(x, target, name="random examples")


def _params(plan: Plan) -> np.ndarray:
    """(P,), small and positive: variances are among them."""
    drawn = np.random.default_rng(0).uniform(0.01, 0.05, plan.num_params)
    return drawn.astype(np.float32)


def _chosen(dataset: Dataset) -> np.ndarray:
    """Row numbers: the first ones, and those with the most extreme labels and values, which a model may refuse."""
    n = len(dataset.x_train)
    found = set(range(min(SAMPLE, n)))
    for array in (dataset.y_train.reshape(n, -1), dataset.x_train.reshape(n, -1)):
        if array.shape[1]:
            wide = array.shape[1]
            found |= {int(array.argmin()) // wide, int(array.argmax()) // wide}
    return np.array(sorted(found))


def _columns(x: np.ndarray) -> Iterator[Finding]:
    spread, far = x.std(axis=0), float(np.abs(x).max())
    flat = int((spread == 0).sum())
    moving = spread[spread > 0]
    if len(moving) and moving.max() > UNEVEN * moving.min():
        text = f"the spread of one column is {moving.max() / moving.min():.0f} times that of another"
        yield warning(text, "standardise the columns: a step that is right for one is far too long for the other")
    elif far > FAR:
        yield warning("columns are not scaled: there are values far beyond 100", "standardise the columns")
    else:
        yield ok("columns of comparable spread")
    if flat:
        yield warning(f"{flat} of {x.shape[1]} columns have one value only", "leave them out with features=")
