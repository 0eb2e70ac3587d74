"""Sparse update: which params a federation trains so that a device's arena stays within a budget.

The choice is made once, on the aggregator's side, and is in the plan: the same for all devices. It follows "On-Device
Training Under 256KB Memory" (Lin et al. 2022, arXiv:2206.15472): backward goes back only as far as the first trained
layer; from there on biases cost a bit for each element of an activation (TinyTL, Cai et al. 2020, arXiv:2007.11622),
and weights their layer's input, or some channels of it (channels.py). So for each depth, biases come first, then the
channels of weights that contribute most for the bytes they keep. What contributes is measured by gradients on examples,
if there are some: a step of SGD along g lowers the loss by lr |g|^2. Without examples, later layers come first, and of
a weight the channels with the largest numbers.

Batch normalization is frozen, and computes with its running statistics: to train it, all of its input must be kept.

Not here: what the arena is (src/arena.c), which measures every choice, and which inputs backward reads (src/compile.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from ..core.plan import Plan
from ..core.trainer import Trainer
from ..errors import UsageError
from .channels import can_part, parted, split
from .model import Model

DEPTHS = 24  # that are tried, at most
EXAMPLES = 512  # whose gradient is taken, at most
SHARES = (8, 4, 2, 1)  # a weight's channels are trained by these parts


class Choice(NamedTuple):
    """What is trained, by name, the arena that this takes, what stays as it is though it could be trained, and of which
    weights only some input channels are trained."""

    train: list[str]
    arena_bytes: int
    freeze: list[str]
    channels: dict[str, list[int]]


class _Layer(NamedTuple):
    """A node's trained params, as indices: those for which backward reads its input, and the others."""

    weights: list[int]
    biases: list[int]
    kept: int  # elements of a sample's input


class _Step(NamedTuple):
    """To train a layer's weights, or so many input channels of its weight, after the step before."""

    layer: int
    channels: int | None  # None: all
    gain: float  # beside the step before
    kept: float  # elements of a sample, beside those of the step before


class _Chosen(NamedTuple):
    """Params by index, and of weights that are trained in part how many channels."""

    params: frozenset[int]
    parts: dict[int, int]

    def and_all(self, weights: Sequence[int]) -> _Chosen:
        parts = {index: count for index, count in self.parts.items() if index not in weights}
        return _Chosen(self.params | {*weights}, parts)

    def and_part(self, weight: int, count: int) -> _Chosen:
        return _Chosen(self.params | {weight}, self.parts | {weight: count})


class _Search(NamedTuple):
    plan: Plan
    layers: list[_Layer]
    gains: list[np.ndarray]  # of each param; of those that can be taken apart, of each input channel
    ranks: dict[int, np.ndarray]  # and their channels, the one that contributes most first
    arena_bytes: int
    batch: int

    def grown(self, depth: int) -> _Chosen | None:
        """What to train if backward goes back to layer number `depth`; None if its biases exceed the budget."""
        reached = range(depth, len(self.layers))
        biases = {index for number in reached for index in self.layers[number].biases}
        chosen = _Chosen(frozenset({*self.layers[-1].weights, *biases}), {})
        if not self.layers[depth].biases:
            chosen = chosen.and_all(self.layers[depth].weights)
        if self.arena(chosen) > self.arena_bytes:
            return None
        steps = [step for number in reached for step in self._steps(number) if not self._has(chosen, number)]
        full: set[int] = set()  # layers whose last step did not fit
        for step in sorted(steps, key=lambda step: -step.gain / step.kept):
            if step.layer in full:
                continue
            weights = self.layers[step.layer].weights
            more = chosen.and_all(weights) if step.channels is None else chosen.and_part(weights[0], step.channels)
            if self.arena(more) <= self.arena_bytes:
                chosen = more
            else:
                full.add(step.layer)
        return chosen

    def _has(self, chosen: _Chosen, number: int) -> bool:
        return chosen.params.issuperset(self.layers[number].weights)

    def _steps(self, number: int) -> Iterator[_Step]:
        """Those of a layer, in order: what each adds for its bytes falls, since the best channels come first."""
        layer = self.layers[number]
        if len(layer.weights) != 1 or layer.weights[0] not in self.ranks:
            yield _Step(number, None, sum(float(self.gains[index].sum()) for index in layer.weights), layer.kept)
            return
        ranked = self.gains[layer.weights[0]][self.ranks[layer.weights[0]]]
        total, before = len(ranked), 0
        for share in SHARES:
            count = -(-total // share)
            if count > before:
                kept = layer.kept * (count - before) / total
                yield _Step(number, None if share == 1 else count, float(ranked[before:count].sum()), kept)
            before = count

    def channels(self, chosen: _Chosen) -> dict[int, list[int]]:
        return {index: sorted(self.ranks[index][:count].tolist()) for index, count in sorted(chosen.parts.items())}

    def gain(self, chosen: _Chosen) -> float:
        parts = sum(float(self.gains[index][channels].sum()) for index, channels in self.channels(chosen).items())
        return parts + sum(float(self.gains[index].sum()) for index in chosen.params if index not in chosen.parts)

    def arena(self, chosen: _Chosen) -> int:
        part = parted(self.plan, self.channels(chosen))
        frozen, _ = part.frozen({index for index in range(len(self.plan.params)) if index not in chosen.params})
        return _core.Net(frozen, self.batch).arena_bytes


def choose(
    model: Model, arena_bytes: int, *, batch: int = 10, x: ArrayLike | None = None, y: ArrayLike | None = None,
    channels: bool = True,
) -> Choice:  # fmt: skip
    """What to train of `model` within `arena_bytes` at `batch` samples; x and y are examples that say what contributes.

    The last layer is always trained. `channels`: a weight may be trained for some input channels alone. UsageError if
    the last layer alone exceeds the budget, with what it needs.
    """
    if model.adapters is not None:
        raise UsageError("the model trains its adapters, which are small: choose fewer weights with adapters.on")
    if any(node.op == "conv_part" for node in model.plan.nodes):
        raise UsageError("the model trains some input channels of weights already: load it without channels")
    trained = _without_batch_norm(model)
    plan, layers = trained.plan, _layers(trained.plan)
    gains = _gains(trained, layers, x, y)
    ranks = {index: np.argsort(-gains[index], kind="stable") for index in can_part(plan)} if channels else {}
    search = _Search(plan, layers, gains, ranks, arena_bytes, batch)
    best = search.grown(len(layers) - 1)
    if best is None:
        needed = search.arena(_Chosen(frozenset({*layers[-1].weights, *layers[-1].biases}), {}))
        raise UsageError(
            f"the last layer alone needs {needed} bytes to train at batch {batch}, {arena_bytes} are allowed: raise "
            "the budget or lower the batch"
        )
    for depth in _depths(len(layers)):
        grown = search.grown(depth)
        if grown is None:
            break
        best = max(best, grown, key=search.gain)
    names = [plan.params[index].name for index in sorted(best.params)]
    others = [param.name for param in model.plan.params if param.trainable and param.name not in names]
    parts = {plan.params[index].name: some for index, some in search.channels(best).items()}
    return Choice(names, search.arena(best), others, parts)


def sparse(
    model: Model, arena_bytes: int, *, batch: int = 10, x: ArrayLike | None = None, y: ArrayLike | None = None,
    channels: bool = True,
) -> Model:  # fmt: skip
    """The model that trains what `choose` says, as `edgefl.load` makes it with its `freeze` and `channels`."""
    return applied(model, choose(model, arena_bytes, batch=batch, x=x, y=y, channels=channels))


def applied(model: Model, choice: Choice) -> Model:
    """The model that trains what was chosen for it."""
    made = split(model.compile(model.source, choice.train), choice.channels)
    return replace(made, arena_bytes=choice.arena_bytes)


def _without_batch_norm(model: Model) -> Model:
    plan = model.plan
    norms = {index for node in plan.nodes if node.op == "batch_norm" for index in node.params}
    names = [param.name for index, param in enumerate(plan.params) if param.trainable and index not in norms]
    return model.compile(model.source, names) if any(plan.params[i].trainable for i in norms) else model


def _layers(plan: Plan) -> list[_Layer]:
    """Of each node that has trained params, in order; a param that several nodes read belongs to the first."""
    shapes, seen, layers = _core.Net(plan, 1).shapes, set[int](), list[_Layer]()
    for node in plan.nodes:
        own = [index for index in node.params if plan.params[index].trainable and index not in seen]
        seen.update(own)
        biases = [index for index in own if index != node.params[0] or node.op in ("add", "sub")]
        weights = [index for index in own if index not in biases]
        if own:
            layers.append(_Layer(weights, biases, prod(shapes[node.inputs[0]])))
    return layers


def _gains(model: Model, layers: Sequence[_Layer], x: ArrayLike | None, y: ArrayLike | None) -> list[np.ndarray]:
    """Of each param, (1) or (channels) float64: the squared norm of its gradient; without examples the number of its
    layer, and of that the channels' shares of the weight's squared norm."""
    plan = model.plan
    if x is not None and y is not None:
        gradient = Trainer(plan).gradient(model.params, np.asarray(x)[:EXAMPLES], np.asarray(y)[:EXAMPLES])
        return _squares(plan, gradient)
    gains = _squares(plan, model.params)
    for number, layer in enumerate(layers):
        for index in layer.weights + layer.biases:
            shares = gains[index] if gains[index].any() else np.ones_like(gains[index])
            gains[index] = (1 + number) * shares / shares.sum()
    return gains


def _squares(plan: Plan, vector: np.ndarray) -> list[np.ndarray]:
    """Of each param, the squared norm of its part of the vector (P,), or of each input channel's."""
    known, starts = can_part(plan), np.cumsum([0, *(param.size for param in plan.params)])
    found = []
    for index, param in enumerate(plan.params):
        squares = np.square(vector[starts[index] : starts[index + 1]], dtype=np.float64)
        if index in known:
            found.append(squares.reshape(-1, *param.shape[-2:]).sum((0, 2)))
        else:
            found.append(squares.sum(keepdims=True))
    return found


def _depths(count: int) -> Iterator[int]:
    """Numbers of first layers, the last layer's first."""
    step = -(-count // DEPTHS)
    yield from range(count - 1, -1, -step)
    if (count - 1) % step:
        yield 0
