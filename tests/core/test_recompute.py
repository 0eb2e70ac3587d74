"""Under a limit of memory, backward computes part of the forward pass again. Not a bit of the result may change."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import ModelError

BATCH = 12


class Draft:
    """A plan, node by node."""

    def __init__(self, *shape):
        self.shape, self.nodes, self.params = list(shape), [], []

    def add(self, op, inputs, *params, ints=(), floats=()):
        first = len(self.params)
        self.params += [param if isinstance(param, Param) else Param(f"p{first}", list(param)) for param in params]
        indices = list(range(first, len(self.params)))
        self.nodes.append(Node(op, inputs, indices, list(ints), list(floats)))
        return len(self.nodes)

    def done(self, loss, shared=None):
        last, order = len(self.nodes), sorted(range(len(self.params)), key=lambda i: not self.params[i].trainable)
        place = {old: new for new, old in enumerate(order)}
        nodes = [Node(n.op, n.inputs, [place[i] for i in n.params], n.ints, n.floats) for n in self.nodes]
        return Plan(self.shape, nodes, [self.params[i] for i in order], loss, last, last)


def norm(draft, value, channels):
    state = [Param(f"s{len(draft.params)}{i}", [channels], False) for i in range(2)]
    return draft.add("batch_norm", [value], [channels], [channels], *state, floats=[1e-3, 0.9])


def inverted_residuals():
    """As in MobileNetV2: 1x1, depthwise 3x3 and 1x1, each with batch norm, and clip after the first two."""
    draft = Draft(8, 8, 4)
    value = 0
    for _ in range(4):
        start = value
        value = draft.add("conv", [value], [1, 1, 4, 12], ints=[1, 1, 0, 0, 0, 0, 1, 1, 1])
        value = draft.add("clip", [norm(draft, value, 12)], floats=[0, 6])
        value = draft.add("depthwise", [value], [3, 3, 12], ints=[1, 1, 1, 1, 1, 1, 1, 1])
        value = draft.add("clip", [norm(draft, value, 12)], floats=[0, 6])
        value = norm(draft, draft.add("conv", [value], [1, 1, 12, 4], ints=[1, 1, 0, 0, 0, 0, 1, 1, 1]), 4)
        value = draft.add("add", [value, start], ints=[]) if start else value
    draft.add("dense", [draft.add("flatten", [value])], [256, 3])
    return draft.done("cross_entropy")


def dropping_mlp():
    draft, value = Draft(20), 0
    for i in range(7):
        value = draft.add("dense", [value], [20, 20], [20])
        value = draft.add("dropout", [draft.add("tanh" if i % 2 else "gelu", [value], ints=[] if i % 2 else [0])],
                          floats=[0.3])  # fmt: skip
    draft.add("dense", [value], [20, 3])
    return draft.done("cross_entropy")


def attention():
    draft, value = Draft(6, 16), 0
    for _ in range(3):
        start = draft.add("dense", [value], [16, 16]) if value == 0 else value
        value = draft.add("layer_norm", [start], [16], [16], floats=[1e-5])
        q, k, v = (draft.add("dense", [value], [16, 16], [16]) for _ in range(3))
        value = draft.add("matmul", [draft.add("softmax", [draft.add("matmul", [q, k], ints=[1])]), v], ints=[0])
        value = draft.add("add", [draft.add("dense", [value], [16, 16]), start])
    draft.add("dense", [value], [16, 3])
    return draft.done("cross_entropy")


def recurrent():
    draft, value = Draft(9, 5), 0
    for wide in (5, 8, 8):
        value = draft.add("lstm", [value], [1, wide, 32], [1, 8, 32], [1, 32], [1, 32], ints=[8, 0, 0])
    value = draft.add("gru", [value], [1, 8, 24], [1, 8, 24], [1, 24], [1, 24], ints=[8, 0, 0, 1])
    draft.add("dense", [value], [8, 3])
    return draft.done("cross_entropy")


def shared():
    draft, value = Draft(20), 0
    for _ in range(6):
        value = draft.add("relu", [draft.add("dense", [value], [20, 20])])
    draft.add("dense", [value], [20, 3])
    plan = draft.done("cross_entropy")
    nodes = [Node(n.op, n.inputs, [0] if n.params == [3] else n.params, n.ints, n.floats) for n in plan.nodes]
    return Plan([20], nodes, plan.params, "cross_entropy", plan.loss_input, plan.output)


PLANS = [inverted_residuals, dropping_mlp, attention, recurrent, shared]


def limits(plan, batch=BATCH):
    full, least, _ = _core.plan_needs(plan, batch)
    assert least < 0.9 * full
    return [full, *(round(full - (full - least) * share) for share in (0.02, 0.3, 0.6, 0.9)), least]


def problem(plan, n=2 * BATCH):
    rng = np.random.default_rng(5)
    params = rng.normal(0, 0.3, plan.num_params).astype(np.float32)
    params[plan.num_trainable :] = rng.random(plan.num_params - plan.num_trainable) + 0.5
    shape = _core.Net(plan, 1).shapes[plan.loss_input]
    return params, rng.normal(0, 1, (n, *plan.input_shape)), rng.integers(0, shape[-1], (n, *shape[:-1]))


@pytest.mark.parametrize("make", PLANS)
def test_every_limit_gives_the_same_bits(make):
    plan = make()
    params, x, y = problem(plan)
    results, arenas = [], []
    for limit in limits(plan):
        trainer = Trainer(plan, batch=BATCH, max_arena_bytes=limit)
        assert trainer.arena_bytes <= limit and trainer.batch == BATCH
        assert trainer.computes_again == (limit < limits(plan)[0])
        arenas.append(trainer.arena_bytes)
        made = [trainer.gradient(params, x[:BATCH], y[:BATCH])]
        for options in ({}, {"momentum": 0.9, "clip_norm": 0.5}, {"optimizer": "adam", "lr": 0.01}):
            made.append(trainer.fit(params, x, y, batch_size=BATCH, epochs=2, seed=3, **options).delta)
        made.append(trainer.predict(params, x))
        results.append([array.tobytes() for array in made])
    assert all(result == results[0] for result in results)
    assert len(set(arenas)) >= 2 and arenas[-1] == min(arenas)


def test_running_statistics_move_once():
    plan = inverted_residuals()
    params, x, y = problem(plan)
    state = slice(plan.num_trainable, None)
    whole, least = (Trainer(plan, batch=BATCH, max_arena_bytes=limits(plan)[i]) for i in (0, -1))
    once = whole.fit(params, x[:BATCH], y[:BATCH], batch_size="all").delta[state]
    assert once.any() and np.array_equal(once, least.fit(params, x[:BATCH], y[:BATCH], batch_size="all").delta[state])


def test_pieces_draw_and_add_up_as_they_would_with_all_memory():
    plan = dropping_mlp()
    params, x, y = problem(plan)
    _, least, _ = _core.plan_needs(plan, 5)
    made = [Trainer(plan, batch=5, max_arena_bytes=limit).fit(params, x, y, batch_size=BATCH, seed=1).delta.tobytes()
            for limit in (None, least)]  # fmt: skip
    assert made[0] == made[1]


def test_the_batch_is_kept_as_long_as_computing_again_makes_it_fit():
    plan = dropping_mlp()
    _, least, _ = _core.plan_needs(plan, BATCH)
    assert Trainer(plan, batch=BATCH, max_arena_bytes=least).batch == BATCH
    assert Trainer(plan, batch=BATCH, max_arena_bytes=least - 1).batch == BATCH // 2


def test_batch_norm_is_refused_below_the_least_alone():
    plan = inverted_residuals()
    full, least, whole = _core.plan_needs(plan, BATCH)
    assert whole and Trainer(plan, batch=BATCH, max_arena_bytes=full - 1).batch == BATCH
    with pytest.raises(ModelError, match=f"needs {least} bytes to train"):
        Trainer(plan, batch=BATCH, max_arena_bytes=least - 1)


def test_no_more_is_computed_again_than_the_limit_asks_for():
    """A chain of n equal layers needs about 2 sqrt(n) of its n values."""
    draft, value, count = Draft(64), 0, 64
    for _ in range(count):
        value = draft.add("tanh", [draft.add("dense", [value], [64, 64])])
    full, least, _ = _core.plan_needs(draft.done("mse"), BATCH)
    one = 4 * 64 * BATCH
    assert full > count * one
    assert least < 2.7 * np.sqrt(count) * one


def test_a_plan_of_many_values_that_live_at_once_is_laid_out_soon():
    """It may come from a network, and nothing can cancel it."""
    draft, count = Draft(64), 400
    first = draft.add("dense", [0], [64, 64])
    values = [draft.add("softplus", [first]) for _ in range(count)]
    for value in values[1:]:
        first = draft.add("mul", [first if value > values[1] else values[0], value])
    plan = draft.done("mse")
    began = time.process_time()
    assert Trainer(plan, batch=8, max_arena_bytes=300_000).arena_bytes <= 300_000
    assert time.process_time() - began < 15


def test_a_frozen_prefix_is_not_computed_again():
    plan = dropping_mlp()
    frozen, _ = plan.freeze([param.name for param in plan.params[:6]])
    params, x, y = problem(frozen)
    full, least, _ = _core.plan_needs(frozen, BATCH)
    made = [Trainer(frozen, batch=BATCH, max_arena_bytes=limit).fit(params, x, y, batch_size=BATCH).delta.tobytes()
            for limit in (full, least)]  # fmt: skip
    assert least < full and made[0] == made[1]
