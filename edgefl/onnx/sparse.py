"""Sparse update: which layers a federation trains so that a device's arena stays within a budget.

The choice is made once, on the aggregator's side, and is in the plan: the same for all devices. It follows "On-Device
Training Under 256KB Memory" (Lin et al. 2022, arXiv:2206.15472): backward goes back only as far as the first trained
layer; from there on biases cost a bit for each element of an activation (TinyTL, Cai et al. 2020, arXiv:2007.11622),
and weights their layer's input. So for each depth, biases come first, then the weights that contribute most for the
bytes they keep. What contributes is measured by gradients on examples, if there are some: a step of SGD along g lowers
the loss by lr |g|^2. Without examples, later layers come first.

Batch normalization is frozen, and computes with its running statistics: to train it, all of its input must be kept.

Not here: what the arena is (src/arena.c), which measures every choice, and which inputs backward reads (src/compile.c).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from ..core.plan import Plan
from ..core.trainer import Trainer
from ..errors import UsageError
from .model import Model

DEPTHS = 24  # that are tried, at most
EXAMPLES = 512  # whose gradient is taken, at most


class Choice(NamedTuple):
    """What is trained, by name, the arena that this takes, and what stays as it is though it could be trained."""

    train: list[str]
    arena_bytes: int
    freeze: list[str]


class _Layer(NamedTuple):
    """A node's trained params, as indices: those for which backward reads its input, and the others."""

    weights: list[int]
    biases: list[int]
    kept: int  # elements of a sample's input


class _Search(NamedTuple):
    plan: Plan
    layers: list[_Layer]
    gains: np.ndarray  # of each param
    arena_bytes: int
    batch: int

    def grown(self, depth: int) -> set[int] | None:
        """The params to train if backward goes back to layer number `depth`; None if its biases exceed the budget."""
        reached = self.layers[depth:]
        chosen = {*self.layers[-1].weights, *(index for layer in reached for index in layer.biases)}
        if not reached[0].biases:
            chosen.update(reached[0].weights)
        if self.arena(chosen) > self.arena_bytes:
            return None
        rest = [layer for layer in reached if not chosen.issuperset(layer.weights)]
        rest.sort(key=lambda layer: -self.gain(layer.weights) / layer.kept)
        for layer in rest:
            more = chosen | {*layer.weights}
            if self.arena(more) <= self.arena_bytes:
                chosen = more
        return chosen

    def gain(self, chosen: Collection[int]) -> float:
        return float(self.gains[sorted(chosen)].sum())

    def arena(self, chosen: set[int]) -> int:
        part, _ = self.plan.frozen({index for index in range(len(self.plan.params)) if index not in chosen})
        return _core.Net(part, self.batch).arena_bytes


def choose(
    model: Model, arena_bytes: int, *, batch: int = 10, x: ArrayLike | None = None, y: ArrayLike | None = None
) -> Choice:
    """What to train of `model` within `arena_bytes` at `batch` samples; x and y are examples that say what contributes.

    The last layer is always trained. UsageError if that alone exceeds the budget, with what it needs.
    """
    if model.adapters is not None:
        raise UsageError("the model trains its adapters, which are small: choose fewer weights with adapters.on")
    frozen = _without_batch_norm(model)
    plan, layers = frozen.plan, _layers(frozen.plan)
    search = _Search(plan, layers, _gains(frozen, layers, x, y), arena_bytes, batch)
    best = search.grown(len(layers) - 1)
    if best is None:
        needed = search.arena({*layers[-1].weights, *layers[-1].biases})
        raise UsageError(
            f"the last layer alone needs {needed} bytes to train at batch {batch}, {arena_bytes} are allowed: raise "
            "the budget or lower the batch"
        )
    for depth in _depths(len(layers)):
        grown = search.grown(depth)
        if grown is None:
            break
        best = max(best, grown, key=search.gain)
    names = [plan.params[index].name for index in sorted(best)]
    others = [param.name for param in model.plan.params if param.trainable and param.name not in names]
    return Choice(names, search.arena(best), others)


def sparse(
    model: Model, arena_bytes: int, *, batch: int = 10, x: ArrayLike | None = None, y: ArrayLike | None = None
) -> Model:
    """The model that trains what `choose` says, as `edgefl.load` makes it with its `freeze`."""
    return model.compile(model.source, choose(model, arena_bytes, batch=batch, x=x, y=y).train)


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
            layers.append(_Layer(weights, biases, int(np.prod(shapes[node.inputs[0]]))))
    return layers


def _gains(model: Model, layers: Sequence[_Layer], x: ArrayLike | None, y: ArrayLike | None) -> np.ndarray:
    """(params) float64: the squared norm of each param's gradient, or the number of its layer."""
    plan = model.plan
    gains = np.zeros(len(plan.params))
    if x is None or y is None:
        for number, layer in enumerate(layers):
            gains[layer.weights + layer.biases] = 1 + number
        return gains
    gradient = Trainer(plan).gradient(model.params, np.asarray(x)[:EXAMPLES], np.asarray(y)[:EXAMPLES])
    starts = np.cumsum([0, *(param.size for param in plan.params)])
    for index in range(len(plan.params)):
        gains[index] = np.square(gradient[starts[index] : starts[index + 1]], dtype=np.float64).sum()
    return gains


def _depths(count: int) -> Iterator[int]:
    """Numbers of first layers, the last layer's first."""
    step = -(-count // DEPTHS)
    yield from range(count - 1, -1, -step)
    if (count - 1) % step:
        yield 0
