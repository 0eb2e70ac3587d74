"""LSTM, GRU and RNN: every attribute against float64 NumPy, odd sizes, malformed plans, and a char-LSTM that learns."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from gradcheck import BASIC, check, close, fused_equals_buffered, one_op, run
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import ModelError


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(gates_x, h, c, wh, bh, node):
    i, o, f, g = np.split(gates_x + h @ wh + bh, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(gates_x, h, c, wh, bh, node):
    xz, xr, xn = np.split(gates_x, 3, axis=-1)
    wz, wr, wn = np.split(wh, 3, axis=-1)
    bz, br, bn = np.split(bh, 3)
    z, r = sigmoid(xz + h @ wz + bz), sigmoid(xr + h @ wr + br)
    n = np.tanh(xn + (r * (h @ wn + bn) if node.ints[3] else (r * h) @ wn + bn))
    return (1 - z) * n + z * h, c


def rnn_step(gates_x, h, c, wh, bh, node):
    return (np.maximum if node.ints[3] else lambda x, _: np.tanh(x))(gates_x + h @ wh + bh, 0), c


def recurrent(step):
    def forward(node, x, wx, wh, bx, bh, *starts):
        hidden, direction, output = node.ints[:3]
        made = []
        for d in range(len(wx)):
            reversed_ = direction == 1 or d == 1
            zero = np.zeros((len(x), hidden))
            h, c = ([zero + start[d] for start in starts] + [zero, zero])[:2]
            states = []
            for t in range(x.shape[1])[:: -1 if reversed_ else 1]:
                h, c = step(x[:, t] @ wx[d] + bx[d], h, c, wh[d], bh[d], node)
                states.append(h)
            made.append(h if output else np.stack(states[:: -1 if reversed_ else 1], axis=1))
        return np.concatenate(made, axis=-1)

    return forward


REFERENCE = {
    "lstm": recurrent(lstm_step),
    "gru": recurrent(gru_step),
    "rnn": recurrent(rnn_step),
    "embedding": lambda node, x, w: w[np.int64(x)],
}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATES = {"lstm": 2, "gru": 1, "rnn": 1}


def weights(op, inner, hidden, directions=1, trainable=True, prefix=""):
    wide = GATES[op] * hidden
    shapes = [[directions, inner, wide], [directions, hidden, wide], [directions, wide], [directions, wide]]
    return [
        Param(prefix + name, shape, trainable) for name, shape in zip(("wx", "wh", "bx", "bh"), shapes, strict=True)
    ]


def layer(op, time, inner, hidden, direction=0, output=0, option=1, starts=0, trained=True):
    """`option` is a GRU's linear_before_reset, and whether an RNN's activation is relu; `starts` initial states."""
    ints = [hidden, direction, output] + ([option] if op != "lstm" else [])
    directions = 2 if direction == 2 else 1
    params = weights(op, inner, hidden, directions)
    params += [Param(f"start{k}", [directions, hidden], trained) for k in range(starts)]
    return one_op(op, [time, inner], params, ints)


FORMS = [("lstm", 0), ("gru", 0), ("gru", 1), ("rnn", 0), ("rnn", 1)]


@pytest.mark.parametrize(("op", "option"), FORMS)
@pytest.mark.parametrize("direction", [0, 1, 2])
@pytest.mark.parametrize("output", [0, 1])
def test_initial_states_against_numpy(op, direction, output, option):
    check(layer(op, 4, 3, 5, direction, output, option, starts=STATES[op]), REFERENCE, samples=6)
    check(layer(op, 1, 3, 5, direction, output, option, starts=STATES[op]), REFERENCE, samples=3)


@pytest.mark.parametrize(("op", "option"), FORMS)
def test_a_frozen_initial_state_still_counts(op, option):
    plan = layer(op, 3, 2, 4, 2, 0, option, STATES[op], trained=False)
    check(plan, REFERENCE, samples=3)
    fused_equals_buffered(plan)


def test_an_lstm_has_both_initial_states_or_none():
    with pytest.raises(ModelError, match="all of its initial states, or none"):
        _core.Net(layer("lstm", 3, 2, 4, starts=1))
    plan = layer("gru", 3, 2, 4, starts=1)
    wrong = Plan(plan.input_shape, plan.nodes, [*plan.params[:5], Param("start", [1, 3])], "mse", 2, 2)
    with pytest.raises(ModelError, match=r"needs initial states \(D, H\)"):
        _core.Net(wrong)


@pytest.mark.parametrize(("op", "option"), FORMS)
@pytest.mark.parametrize("direction", [0, 1, 2])
@pytest.mark.parametrize("output", [0, 1])
def test_every_attribute_against_numpy(op, direction, output, option):
    check(layer(op, 4, 3, 5, direction, output, option), REFERENCE, samples=6)


@settings(max_examples=25, deadline=None)
@given(
    op=st.sampled_from(["lstm", "gru", "rnn"]),
    time=st.sampled_from([1, 2, 7]),
    inner=st.sampled_from([1, 2, 5]),
    hidden=st.sampled_from([1, 3, 9]),
    direction=st.integers(0, 2),
    output=st.integers(0, 1),
    option=st.integers(0, 1),
    starts=st.booleans(),
    samples=st.integers(1, 5),
)
def test_any_size_against_numpy(op, time, inner, hidden, direction, output, option, starts, samples):
    check(
        layer(op, time, inner, hidden, direction, output, option, STATES[op] * starts),
        REFERENCE,
        samples=samples,
        batch=3,
    )


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize("hidden", [17, 32])
def test_whole_and_partial_vectors(op, hidden):
    plan = layer(op, 3, 2, hidden, 0, 1)
    check(plan, REFERENCE, samples=2, params=np.random.default_rng(1).normal(0, 0.3, plan.num_params))


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize("hidden", [63, 64, 65, 420])
def test_wide_layers(op, hidden):
    """Too many weights for a difference a weight: forward, and the gradient along a direction of each tensor's."""
    plan, rng, forwards = layer(op, 4, 3, hidden, 2, 0), np.random.default_rng(0), {**BASIC, **REFERENCE}
    params = rng.normal(0, 0.1, plan.num_params).astype(np.float32)
    x, y = (rng.normal(0, 1, (3, 4, wide)).astype(np.float32) for wide in (3, 2 * hidden))
    net, out, gradient = _core.Net(plan, 4), np.empty_like(y), np.empty_like(params)
    net.predict(params, x.ravel(), out.reshape(-1))
    close(out, run(plan, forwards, params, x, 2), 1e-5)
    net.gradient(params, x.ravel(), y.ravel(), gradient)
    start = 0
    for size in (param.size for param in plan.params):
        direction = np.zeros(plan.num_params)
        direction[start : start + size] = rng.normal(0, 1, size)
        ahead, behind = (run(plan, forwards, params + step * direction, x, 2) for step in (1e-5, -1e-5))
        slope = (((ahead - y) ** 2).mean() - ((behind - y) ** 2).mean()) / 2e-5
        assert slope == pytest.approx(gradient @ direction, rel=1e-3, abs=1e-6)
        start += size


@pytest.mark.parametrize(("op", "option"), FORMS)
@pytest.mark.parametrize("direction", [0, 2])
def test_fused_equals_buffered(op, direction, option):
    plan = layer(op, 3, 2, 6, direction, 0, option)
    fused_equals_buffered(plan)
    fused_equals_buffered(plan, clip_norm=0.3)


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize("frozen", [[0], [1], [2, 3], [0, 1, 2, 3]])
def test_frozen_weights_still_pass_the_gradient_on(op, frozen):
    params = [Param(p.name, p.shape, i not in frozen) for i, p in enumerate(weights(op, 3, 4))]
    plan = one_op(op, [3, 3], params, [4, 0, 0] + ([0] if op == "gru" else []))
    check(plan, REFERENCE)


def char_model(op="lstm", vocabulary=11, width=3, hidden=5, time=6, layers=2, sequence=False):
    params = [Param("embedding", [vocabulary, width])]
    nodes = [Node("embedding", [0], [0])]
    for k in range(layers):
        inner = width if k == 0 else hidden
        last = int(k == layers - 1 and not sequence)
        ints = [hidden, 0, last] + ([1] if op == "gru" else [])
        nodes.append(Node(op, [k + 1], [len(params) + i for i in range(4)], ints))
        params += weights(op, inner, hidden, prefix=f"layer{k}.")
    nodes.append(Node("dense", [layers + 1], [len(params), len(params) + 1]))
    params += [Param("w", [hidden, vocabulary]), Param("b", [vocabulary])]
    end = len(nodes)
    return Plan([time], nodes, params, "cross_entropy", end, end, input_dtype="int64")


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize("sequence", [False, True])
def test_char_model_against_numpy(op, sequence):
    tokens = np.random.default_rng(0).integers(0, 11, (5, 6))
    check(char_model(op, sequence=sequence), REFERENCE, x=tokens)


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_a_model_learns_to_copy_the_second_token(op):
    plan = char_model(op, vocabulary=5, hidden=16)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (400, 6))
    start = rng.normal(0, 0.3, plan.num_params).astype(np.float32)
    trainer = Trainer(plan)
    result = trainer.fit(start, x, x[:, 1], epochs=25, lr=0.01, optimizer="adam")
    assert trainer.evaluate(start + result.delta, x, x[:, 1]).accuracy > 0.95


def test_the_arena_of_a_last_output_is_no_larger_than_needed():
    """Two layers of 256 units over 80 steps: gates, cells and one sequence of each layer, not another of the last."""
    plan = char_model(vocabulary=90, width=8, hidden=256, time=80)
    assert plan.num_params == 90 * 8 + 4 * 256 * (8 + 256 + 2) + 4 * 256 * (512 + 2) + 257 * 90
    per_sample = Trainer(plan, batch=11).arena_bytes - Trainer(plan, batch=10).arena_bytes
    saved = 4 * (2 * 80 * 5 * 256)
    sequence = 4 * 80 * 256
    assert per_sample < saved + 3.2 * sequence


@pytest.mark.parametrize("op", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("shape", "changes", "ints"),
    [
        ([3], {}, [4, 0, 0]),
        ([2, 3, 3], {}, [4, 0, 0]),
        ([3, 2], {}, [4, 0, 0]),
        ([3, 3], {}, [0, 0, 0]),
        ([3, 3], {}, [-1, 0, 0]),
        ([3, 3], {}, [5, 0, 0]),
        ([3, 3], {}, [2**40, 0, 0]),
        ([3, 3], {}, [4, 2, 0]),
        ([3, 3], {}, [4, 3, 0]),
        ([3, 3], {}, [4, -1, 0]),
        ([3, 3], {}, [4, 0, 2]),
        ([3, 3], {}, [4, 0]),
        ([3, 3], {}, [4, 0, 0, 2, 0]),
        ([3, 3], {0: [3, 16]}, [4, 0, 0]),
        ([3, 3], {1: [1, 3, 16]}, [4, 0, 0]),
        ([3, 3], {2: [16]}, [4, 0, 0]),
        ([3, 3], {3: [1, 17]}, [4, 0, 0]),
    ],
)
def test_malformed_plans_are_refused(op, shape, changes, ints):
    params = weights(op, 3, 4)
    for place, wrong in changes.items():
        params[place] = Param("wrong", wrong)
    if op == "gru" and len(ints) == 3:
        ints = [*ints, 1]
    with pytest.raises(ModelError, match=rf"node 0 \({op}\): "):
        _core.Net(Plan(shape, [Node(op, [0], [0, 1, 2, 3], ints)], params, "mse", 1, 1), 2)


@pytest.mark.parametrize("op", ["lstm", "gru"])
def test_a_sequence_too_long_for_any_memory_is_refused(op):
    ints = [4, 0, 0] + ([1] if op == "gru" else [])
    plan = Plan([2**28, 3], [Node(op, [0], [0, 1, 2, 3], ints)], weights(op, 3, 4), "mse", 1, 1)
    with pytest.raises(ModelError, match=r"needs .* are allowed"):
        _core.Net(plan, 2, 2**30)


def test_gru_refuses_an_unknown_reset():
    with pytest.raises(ModelError, match="linear_before_reset"):
        _core.Net(Plan([3, 3], [Node("gru", [0], [0, 1, 2, 3], [4, 0, 0, 2])], weights("gru", 3, 4), "mse", 1, 1), 2)


dims = st.integers(1, 16) | st.sampled_from([2**15, 2**20, 2**30])
any_shape = st.lists(dims, min_size=1, max_size=4)
any_int = st.integers(-1, 4) | st.sampled_from([2**15, 2**31, 2**62, -(2**62)])


@settings(max_examples=200, deadline=None)
@given(
    op=st.sampled_from(["lstm", "gru", "embedding", "matmul"]),
    shapes=st.lists(any_shape, min_size=5, max_size=5),
    ints=st.lists(any_int, max_size=5),
    params=st.integers(0, 5),
    inputs=st.integers(1, 2),
)
def test_no_plan_crashes_the_core(op, shapes, ints, params, inputs):
    node = Node(op, [0] * inputs, list(range(params)), ints)
    plan = Plan(shapes[0], [node], [Param("p", shape) for shape in shapes], "mse", 1, 1)
    try:
        _core.Net(plan, 3, 2**20)
    except ModelError as error:
        assert "plan: " in str(error) or "are allowed" in str(error)


SCRIPT = """
import sys
import numpy as np
from edgefl.core.trainer import Trainer
from test_recurrent import char_model
for op in ("lstm", "gru"):
    plan = char_model(op, hidden=67)
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.2, plan.num_params).astype(np.float32)
    x = rng.integers(0, 11, (23, 6))
    sys.stdout.buffer.write(Trainer(plan).fit(w, x, x[:, 0], epochs=2, lr=0.05, seed=3).delta.tobytes())
"""


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_each_instruction_set_agrees_with_the_baseline(isa):
    results = []
    for name in (isa, "baseline"):
        environment = {
            **os.environ,
            "EDGEFL_ISA": name,
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
        }
        done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=False)
        if b"not supported by this processor" in done.stderr:
            pytest.skip(f"this processor has no {name}")
        assert done.returncode == 0, done.stderr.decode()
        results.append(np.frombuffer(done.stdout, np.float32))
    close(results[0], np.float64(results[1]), 1e-4)
