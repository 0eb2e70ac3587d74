"""A plan comes from the network: whatever is in it, the core refuses it with ModelError or runs it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl import _core
from edgefl.core.plan import LOSSES, Head, Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import ModelError, UsageError

OPS = ["dense", "add", "flatten", "relu", "tanh", "sigmoid", "softmax", "log_softmax"]
ARRANGED = ["sub", "mul", "mean", "reshape", "transpose", "pad", "slice", "concat", "clip", "leaky_relu", "hard_swish",
            "gelu", "batch_norm", "layer_norm", "dropout", "resize", "extend", "stride", "expand",
            "repeat", "mask", "lrn",
            "max", "reduce_max", "norm", "group_norm", "shrink"]  # fmt: skip
dims = st.integers(1, 6) | st.sampled_from([0, -1, 2**24, 2**40, 2**63, 2**70])
shapes = st.lists(dims, max_size=7) | st.just([3, 3]) | st.just([3])
small = st.integers(0, 6) | st.sampled_from([-1, 4096, 2**31, 2**64])
nodes = st.builds(
    Node,
    st.sampled_from(OPS + ARRANGED) | st.text(max_size=40),
    st.lists(small, max_size=9),
    st.lists(small, max_size=9),
    st.lists(st.integers(0, 3) | st.integers(), max_size=6),
    st.lists(st.floats(0, 1) | st.floats(), max_size=2),
)
plans = st.builds(
    Plan,
    shapes,
    st.lists(nodes, max_size=6),
    st.lists(st.builds(Param, st.just("w"), shapes), max_size=4),
    st.sampled_from(LOSSES),
    small,
    small,
)


@st.composite
def nearly_valid(draw):
    """Chains that mostly fit, so that the inner checks and the execution are reached."""
    width, made, params = 3, [], [Param("w", [3, 3]), Param("b", [3]), Param("v", [3, 4])]
    for i in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from(OPS))
        source = [draw(st.integers(max(0, i - 2), i)) for _ in range(2 if op == "add" else 1)]
        own = draw(st.sampled_from([[0, 1], [0], [0, 1], [2]])) if op == "dense" else []
        made.append(Node(op, source, own))
    ends = draw(st.integers(1, len(made))), draw(st.integers(1, len(made)))
    return Plan(draw(st.sampled_from([[width], [2, width]])), made, params, draw(st.sampled_from(LOSSES)), *ends)


@st.composite
def arranged(draw):
    """Chains of the ops that have attributes, which are nearly right: axes, sizes and pads from -1 to 4."""
    shape, nodes = draw(st.sampled_from([[3], [2, 3], [1, 2, 3]])), [Node("dense", [0], [0])]
    few = st.integers(-1, 4)
    for i in range(1, draw(st.integers(2, 6))):
        op = draw(st.sampled_from(ARRANGED))
        inputs = [draw(st.integers(max(0, i - 2), i)) for _ in range(2 if op in ("sub", "mul", "max", "concat") else 1)]
        own = {"batch_norm": [1, 2, 3, 4], "layer_norm": [1, 2], "repeat": [1]}.get(op, [])
        counts = {"slice": [3], "concat": [1], "gelu": [1], "transpose": [1, 2, 3], "pad": [2, 4, 6], "sub": [1],
                  "resize": [5], "mask": [2], "extend": [4], "stride": [4], "expand": [1, 2, 3],
                  "lrn": [1], "reduce_max": [1, 2], "norm": [1, 2], "group_norm": [2]}  # fmt: skip
        count = draw(st.sampled_from(counts.get(op, [0, 1] if op in ("mul", "max", "reshape", "mean") else [0])))
        ints = draw(st.lists(few, min_size=count, max_size=count))
        numbers = {"clip": 2, "batch_norm": 2, "lrn": 3, "shrink": 2}
        numbers |= dict.fromkeys(("pad", "leaky_relu", "layer_norm", "dropout", "resize", "mask", "group_norm"), 1)
        floats = [0.5] * numbers.get(op, 0)
        nodes.append(Node(op, inputs, own, ints, floats))
    params = [Param("w", [3, 3]), *(Param(name, [3]) for name in "gb"), *(Param(name, [3], False) for name in "mv")]
    return Plan(shape, nodes, params, draw(st.sampled_from(LOSSES)), len(nodes), draw(st.integers(1, len(nodes))))


@st.composite
def branching(draw):
    """A flat row cut into slices, some of which are tokens, joined again; two losses anywhere. Nearly right."""
    width = draw(st.integers(4, 8))
    made, params = [], [Param("e", [2, 3]), Param("f", [4, 3]), Param("w", [6, 4]), Param("v", [4, 2])]
    for table in draw(st.lists(st.integers(0, 1), min_size=2, max_size=2)):
        made.append(
            Node("slice", [0], [], [0, draw(st.integers(0, width - 3) | st.just(width - 1)), draw(st.integers(1, 3))])
        )
        made.append(Node(draw(st.sampled_from([*["flatten"] * 7, "relu"])), [len(made)]))
        made.append(Node("embedding", [len(made)], [table]))
        made.append(Node("mean", [len(made)], [], [0]))
    made += [Node("concat", [4, 8], [], [0]), Node("dense", [9], [2]), Node("tanh", [10]), Node("dense", [11], [3])]
    ends = st.integers(1, len(made)) | st.sampled_from([10, 12])
    read = draw(st.lists(ends, min_size=2, max_size=3, unique=True) | st.just([10, 12]))
    losses = [Head(str(at), draw(st.sampled_from(LOSSES)), at, draw(st.floats(0.1, 3)), [1]) for at in read]
    return Plan([width], made, params, losses[0].loss, losses[0].input, draw(ends), losses=losses)


def exercise(plan):
    try:
        net = _core.Net(plan, 3, 2**24)
    except ModelError as error:
        assert str(error).startswith("plan: ")
        return
    if net.mixes_samples:
        net = _core.Net(plan, 5)
    n = 5
    params = np.full(net.num_params, 0.1, np.float32)
    x = np.linspace(-1, 1, n * int(np.prod(net.shapes[0])), dtype=np.float32)
    if any(node.op == "embedding" for node in plan.nodes):
        x = np.abs(np.round(x))
    y = np.zeros(n * net.target_size, np.float32) if net.target_size else np.zeros(n * net.label_count, np.int64)
    out, delta = np.empty(n * int(np.prod(net.shapes[plan.output])), np.float32), np.empty_like(params)
    net.predict(params, x, out)
    net.gradient(params, x, y, delta)
    options = dict(epochs=2, batch_size=4, max_steps=0, seed=0, lr=0.01)
    net.fit(params, x, y, delta, momentum=0.9, weight_decay=0.1, prox_mu=0.1, clip_norm=1.0, **options)
    assert np.isfinite(out).all()
    assert np.isfinite(delta).all()
    assert net.evaluate(params, x, y)[0] >= 0


@settings(max_examples=400, deadline=None)
@given(plans)
def test_no_plan_crashes_the_core(plan):
    exercise(plan)


@settings(max_examples=400, deadline=None)
@given(nearly_valid())
def test_no_nearly_valid_plan_crashes_the_core(plan):
    exercise(plan)


@settings(max_examples=300, deadline=None)
@given(branching())
def test_no_slices_and_losses_crash_the_core(plan):
    exercise(plan)


@settings(max_examples=600, deadline=None)
@given(arranged())
def test_no_arrangement_crashes_the_core(plan):
    exercise(plan)


def chain(**changes):
    parts = dict(
        input_shape=[3], nodes=[Node("dense", [0], [0])], params=[Param("w", [3, 2])],
        loss="cross_entropy", loss_input=1, output=1,
    )  # fmt: skip
    return Plan(**{**parts, **changes})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nodes": [Node("conv9", [0])]}, r"node 0 \(conv9\): no such op"),
        ({"nodes": [Node("dense", [1], [0])]}, "reads value 1, which does not exist yet"),
        ({"nodes": [Node("dense", [0], [1])]}, "owns param 1, which does not exist"),
        ({"nodes": [Node("dense", [0])]}, "wrong number"),
        ({"nodes": [Node("relu", [0], [], [1])]}, "wrong number"),
        ({"input_shape": [4]}, r"needs a weight \(I, O\)"),
        ({"nodes": [Node("dense", [0], [0, 0])]}, r"needs a bias \(O\)"),
        ({"nodes": [Node("dense", [0], [0]), Node("add", [0, 1])]}, "shapes that broadcast"),
        ({"input_shape": [2**24, 2**24]}, "too large"),
        ({"params": [Param("w", [2**24, 2**24, 2**24, 2**24])]}, "too large"),
        ({"params": [Param("w", [3, 0])]}, "empty"),
        ({"input_shape": [1, 1, 1, 1, 1, 1, 1]}, "7 axes"),
        ({"loss_input": 0}, "no node's value"),
        ({"output": 2}, "no node's value"),
        ({"loss_input": 1, "output": 1, "input_shape": [], "nodes": [Node("dense", [0], [0])]}, "last axis"),
        ({"input_shape": [2**70]}, "too large"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(changes, says):
    with pytest.raises(ModelError, match=says):
        Trainer(chain(**changes))


@pytest.mark.parametrize("data", [b"", b"[" * 100_000, b'{"\xf0', chain().to_bytes().replace(b"dense", b"dens\xff")])
def test_bytes_that_are_no_plan_are_refused(data):
    with pytest.raises(ModelError, match="not a plan"):
        Plan.from_bytes(data)


def test_the_arena_is_bounded():
    needed = Trainer(chain(), batch=8).arena_bytes
    assert Trainer(chain(), batch=8, max_arena_bytes=needed).arena_bytes == needed
    with pytest.raises(ModelError, match=f"needs {needed} bytes .* lower batch"):
        _core.Net(chain(), 8, needed - 1)
    with pytest.raises(ModelError, match="smaller model"):
        Trainer(chain(params=[Param("w", [3, 2])] + [Param("x", [2**15, 2**15])] * 60_000))
    with pytest.raises(UsageError):
        Trainer(chain(), batch=0)
    with pytest.raises(UsageError):
        Trainer(chain(), batch=2**25)


def test_shapes_and_flops():
    net = _core.Net(chain(nodes=[Node("dense", [0], [0]), Node("relu", [1])]))
    assert net.shapes == [(3,), (2,), (2,)]
    assert net.flops == [12, 2]
    assert net.num_params == 6
