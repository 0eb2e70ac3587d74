"""Plans with several inputs and losses: what is refused, and the same bits in less memory and by more threads."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl import _core
from edgefl.core.packed import drawn_x, drawn_y
from edgefl.core.plan import Head, Input, Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import DataError, ModelError

DEEP, WIDE = 8, 64


def deep(middle: bool = True) -> Plan:
    """Tokens and numbers, eight layers, a loss of a layer in the middle, of one behind it, and of the last."""
    nodes = [
        Node("slice", [0], [], [0, 0, 20]), Node("slice", [0], [], [0, 20, 4]), Node("embedding", [2], [0]),
        Node("flatten", [3]), Node("concat", [1, 4], [], [0]),
    ]  # fmt: skip
    params = [Param("e", [9, 5])]
    for layer in range(DEEP):
        params.append(Param(f"w{layer}", [WIDE if layer else 40, WIDE]))
        nodes += [Node("dense", [len(nodes)], [layer + 1]), Node("tanh", [len(nodes) + 1])]
    half, last = 5 + DEEP, 5 + 2 * DEEP
    nodes += [Node("dense", [half], [DEEP + 1]), Node("dense", [last], [DEEP + 2])]
    nodes.append(Node("concat", [last + 1, last + 2], [], [0]))
    heads = [Head("kind", "cross_entropy", last + 1, 1.0, [3]), Head("size", "mse", last + 2, 0.3, [2])]
    heads = [Head("middle", "mse", half, 0.5, [WIDE]), *heads] if middle else heads
    return Plan(
        [24], nodes, [*params, Param("h", [WIDE, 3]), Param("g", [WIDE, 2])], heads[0].loss, heads[0].input,
        len(nodes), inputs=[Input("x", [20]), Input("t", [4], "int64")], losses=heads,
    )  # fmt: skip


def work(plan: Plan):
    rng = np.random.default_rng(0)
    x, y = drawn_x(plan, rng, 60), drawn_y(plan, _core.Net(plan, 1).shapes, rng, 60)
    return rng.normal(0, 0.2, plan.num_params).astype(np.float32), x, y


@pytest.mark.parametrize("middle", [True, False])
def test_less_memory_gives_the_same_bits(middle):
    plan = deep(middle)
    params, x, y = work(plan)
    options = {"batch_size": 20, "epochs": 3, "momentum": 0.5}
    whole = Trainer(plan)
    expected = whole.fit(params, x, y, **options)
    tight = Trainer(plan, max_arena_bytes=int(0.85 * whole.arena_bytes))
    found = tight.fit(params, x, y, **options)
    assert tight.batch == whole.batch and tight.arena_bytes < whole.arena_bytes
    assert (found.delta == expected.delta).all() and found.loss == expected.loss


def test_the_loss_is_the_weighted_sum_of_means():
    """Against each loss alone, in plans that differ in nothing else."""
    plan = deep(False)
    params, x, y = work(plan)
    total = Trainer(plan).gradient(params, x, y)
    parts = []
    for head, targets in zip(plan.losses, (y[:, 0].astype(int), y[:, 1:]), strict=True):
        alone = Plan(plan.input_shape, plan.nodes, plan.params, head.loss, head.input, plan.output, inputs=plan.inputs)
        parts.append(
            (head.weight, Trainer(alone).gradient(params, x, targets), Trainer(alone).evaluate(params, x, targets))
        )
    np.testing.assert_allclose(total, sum(weight * gradient for weight, gradient, _ in parts), atol=1e-6)
    scores = Trainer(plan).evaluate(params, x, y)
    assert scores.loss == pytest.approx(sum(weight * score.loss for weight, _, score in parts), rel=1e-6)
    assert scores.accuracy == parts[0][2].accuracy


@pytest.mark.parametrize("label", [0.5, -1, 3, 2.0**30])
def test_labels_among_numbers_are_whole_and_known(label):
    plan = deep(False)
    params, x, y = work(plan)
    y[7, 0] = label
    with pytest.raises(DataError, match=r"in column 0 of y, sample 7, is no label 0\.\.2"):
        Trainer(plan).fit(params, x, y)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input_shape": [25]}, "do not fill its input_shape"),
        ({"loss": "mse"}, "not the first of losses"),
        ({"inputs": [Input("x", [20]), Input("x", [4])]}, "two inputs have one name"),
        ({"inputs": [Input("x", [20]), Input("t", [4], "int8")]}, "unknown dtype"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(change, says):
    plan = deep(False)
    fields = {name: getattr(plan, name) for name in Plan.__struct_fields__}
    with pytest.raises(ModelError, match=says):
        Plan(**fields | change)


@pytest.mark.parametrize("count", [1, 9])
def test_so_many_losses_are_no_plan(count):
    made = deep(False).to_bytes()
    start = made.index(b'"losses":[') + len(b'"losses":')
    head = b'["a","mse",1,1.0,[2]]'
    with pytest.raises(ModelError, match="not a plan"):
        Plan.from_bytes(made[:start] + b"[" + b",".join([head] * count) + b"]}")
