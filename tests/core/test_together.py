"""What makes a step faster or smaller, all at once: threads, recomputation, fused batch norm, Winograd's transforms and
bits in place of activations, in a net with several losses. The results have the bits of the plain run."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.packed import drawn_x, drawn_y
from edgefl.core.plan import Head, Node, Param, Plan
from edgefl.core.trainer import Trainer

BATCH, WIDE, ODD = 12, 32, 40
SAME, POINT = [1, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 1, 1, 1]


class Net:
    """A plan, node by node; its frozen params are moved behind the trained ones."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.params: list[Param] = []

    def add(self, op, inputs, shapes=(), ints=(), floats=(), frozen=()):
        first = len(self.params)
        for at, shape in enumerate(shapes):
            self.params.append(Param(f"p{first + at}", list(shape), at not in frozen))
        self.nodes.append(Node(op, inputs, list(range(first, len(self.params))), list(ints), list(floats)))
        return len(self.nodes)

    def normed(self, value, channels, activation=("relu", ())):
        value = self.add("batch_norm", [value], 4 * [[channels]], floats=[1e-3, 0.9], frozen=(2, 3))
        return self.add(activation[0], [value], floats=activation[1]) if activation else value

    def head(self, value, channels, outputs):
        return self.add("dense", [self.add("mean", [value], ints=[0, 1])], [[channels, outputs], [outputs]])

    def done(self, shape, kinds):
        order = sorted(range(len(self.params)), key=lambda i: not self.params[i].trainable)
        place = {old: new for new, old in enumerate(order)}
        nodes = [Node(n.op, n.inputs, [place[i] for i in n.params], n.ints, n.floats) for n in self.nodes]
        values = [value for _, value, _ in kinds]
        nodes.append(Node("concat", values, [], [0]))
        heads = [Head(f"h{v}", loss, v, 0.5 + 0.25 * i, [wide]) for i, (loss, v, wide) in enumerate(kinds)]
        return Plan(shape, nodes, [self.params[i] for i in order], heads[0].loss, values[0], len(nodes), losses=heads)


def residual() -> Plan:
    """3 x 3 convolutions that fit Winograd's transforms and one that does not, a depthwise one, a relu before a frozen
    layer, dropout, and losses in the middle, behind the first block and at the end."""
    net, kinds = Net(), []
    value = net.normed(net.add("conv", [0], [[3, 3, 3, WIDE]], ints=SAME), WIDE)
    for block, outputs in enumerate((5, 2)):
        start = value
        value = net.normed(net.add("conv", [value], [[3, 3, WIDE, ODD], [ODD]], ints=SAME), ODD, ("clip", [0.0, 6.0]))
        value = net.normed(net.add("depthwise", [value], [[3, 3, ODD]], ints=SAME[:8]), ODD)
        value = net.normed(net.add("conv", [value], [[3, 3, ODD, WIDE]], ints=SAME), WIDE, None)
        value = net.add("relu", [net.add("add", [value, start])])
        value = net.add("conv", [value], [[1, 1, WIDE, WIDE]], ints=POINT, frozen=(0,))
        value = net.add("dropout", [net.normed(value, WIDE)], floats=[0.2])
        kinds.append(("mse" if block else "cross_entropy", net.head(value, WIDE, outputs), outputs))
    last = net.normed(net.add("conv", [value], [[3, 3, WIDE, 36]], ints=[2, 2, 1, 1, 1, 1, 1, 1, 1]), 36)
    kinds.append(("bce", net.add("sigmoid", [net.head(last, 36, 3)]), 3))
    return net.done([16, 18, 3], kinds)


def everything(trainer: Trainer, **options: object) -> bytes:
    """The bytes of a fit, its loss, a gradient, an evaluation and a prediction."""
    plan, rng = trainer.plan, np.random.default_rng(0)
    params = rng.normal(0, 0.1, plan.num_params).astype(np.float32)
    x, y = drawn_x(plan, rng, 30), drawn_y(plan, _core.Net(plan, 1).shapes, rng, 30)
    made = trainer.fit(params, x, y, epochs=1, batch_size=BATCH, lr=0.01, seed=3, **options)
    assert np.isfinite(made.delta).all() and made.delta[: plan.num_trainable].any()
    loss = np.array([made.loss, trainer.evaluate(params, x, y).loss])
    gradient = trainer.gradient(params, x[:BATCH], y[:BATCH])
    return b"".join(a.tobytes() for a in (made.delta, loss, gradient, trainer.predict(params, x)))


def recomputes_with_two(plan: Plan, limit: int) -> bool:
    """Whether the limit leaves room for two threads, and not for all activations."""
    trainer = Trainer(plan, batch=BATCH, threads=2, max_arena_bytes=limit)
    return trainer.threads == 2 and trainer.computes_again


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "clip_norm": 0.5}, {"optimizer": "adam"}],
                         ids=["sgd", "clipped", "adam"])  # fmt: skip
def test_threads_and_less_memory_give_the_bits_of_the_plain_run(options):
    plan = residual()
    full, least, _ = _core.plan_needs(plan, BATCH)
    assert least < 0.8 * full
    plain = everything(Trainer(plan, batch=BATCH), **options)
    tight = [limit for limit in np.linspace(least, full, 12, dtype=int).tolist() if recomputes_with_two(plan, limit)]
    assert tight
    for threads, limit in ((2, None), (1, least), *((2, limit) for limit in {tight[0], tight[-1]})):
        trainer = Trainer(plan, batch=BATCH, threads=threads, max_arena_bytes=limit)
        assert everything(trainer, **options) == plain, (threads, limit)
