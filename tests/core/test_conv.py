"""conv and depthwise against float64 NumPy: values, every gradient, every attribute, odd sizes, hostile plans."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered
from hypothesis import given, settings
from hypothesis import strategies as st
from isa_runs import run
from windows import FORWARDS, conv_plan, depthwise_plan

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

CONVS = {
    "McMahan's first layer": ((7, 6, 1), (5, 5), 5, dict(pads=(2, 2, 2, 2))),
    "3x3 same": ((5, 6, 3), (3, 3), 4, dict(pads=(1, 1, 1, 1))),
    "valid, no copy": ((6, 5, 2), (3, 2), 3, {}),
    "1x1": ((4, 3, 5), (1, 1), 6, {}),
    "1x1 stride 2 leaves pixels unreached": ((5, 5, 3), (1, 1), 4, dict(stride=(2, 2))),
    "keras same of even input": ((6, 6, 2), (3, 3), 3, dict(stride=(2, 2), pads=(0, 0, 1, 1))),
    "DS-CNN's first layer": ((13, 6, 1), (10, 4), 3, dict(stride=(2, 2), pads=(4, 1, 5, 1))),
    "stride above kernel": ((9, 8, 2), (2, 2), 2, dict(stride=(3, 4))),
    "dilation": ((7, 8, 2), (3, 2), 3, dict(dilation=(2, 3), pads=(2, 1, 1, 2))),
    "dilation and stride with a common divisor": (
        (11, 10, 2),
        (3, 3),
        2,
        dict(dilation=(2, 3), stride=(4, 2), pads=(3, 2, 1, 4)),
    ),
    "groups": ((5, 4, 6), (3, 2), 4, dict(groups=2, pads=(1, 0, 1, 1))),
    "groups of one": ((4, 4, 3), (2, 2), 6, dict(groups=3, stride=(2, 1))),
    "pads beyond the kernel": ((3, 3, 2), (2, 2), 2, dict(pads=(3, 2, 4, 3))),
    "one-dimensional": ((1, 17, 3), (1, 5), 4, dict(pads=(0, 2, 0, 2), stride=(1, 2))),
    "no bias": ((4, 4, 2), (3, 3), 3, dict(bias=False)),
    "one pixel": ((1, 1, 3), (1, 1), 2, {}),
    "17 channels": ((3, 3, 17), (2, 2), 19, dict(pads=(1, 0, 0, 1))),
}
DEPTHWISE = {
    "3x3 same": ((5, 6, 3), (3, 3), 1, dict(pads=(1, 1, 1, 1))),
    "stride 2": ((6, 7, 4), (3, 3), 1, dict(stride=(2, 2), pads=(0, 1, 1, 1))),
    "twice": ((4, 5, 3), (2, 3), 2, dict(pads=(1, 1, 0, 1))),
    "three times, stride, no padding": ((5, 5, 2), (2, 2), 3, dict(stride=(3, 2))),
    "dilation": ((7, 7, 2), (3, 2), 1, dict(dilation=(2, 3), stride=(2, 3), pads=(2, 2, 2, 2))),
    "19 channels": ((3, 4, 19), (3, 3), 1, dict(pads=(1, 1, 1, 1), bias=False)),
    "one channel": ((5, 4, 1), (4, 1), 1, dict(stride=(1, 3))),
}


@pytest.mark.parametrize("name", CONVS)
def test_conv(name):
    shape, kernel, out, options = CONVS[name]
    check(conv_plan(shape, kernel, out, **options), FORWARDS)


@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(name):
    shape, kernel, times, options = DEPTHWISE[name]
    check(depthwise_plan(shape, kernel, times, **options), FORWARDS)


pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))
windows = st.fixed_dictionaries(
    {"stride": pairs, "dilation": pairs, "pads": st.tuples(*[st.integers(0, 3)] * 4), "bias": st.booleans()}
)


def fits(shape, kernel, options):
    padded = [shape[i] + options["pads"][i] + options["pads"][i + 2] for i in (0, 1)]
    return all(padded[i] > (kernel[i] - 1) * options["dilation"][i] for i in (0, 1))


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 9)),
    st.integers(1, 3),
    pairs,
    st.integers(1, 3),
    st.integers(1, 3),
    windows,
)
def test_any_window(image, channels, kernel, out, groups, options):
    shape = (*image, channels * groups)
    if fits(shape, kernel, options):
        check(conv_plan(shape, kernel, out * groups, groups=groups, **options), FORWARDS, samples=2)
        check(depthwise_plan((*image, channels), kernel, out, **options), FORWARDS, samples=2)


@pytest.mark.parametrize("channels,out", [(1, 1), (3, 16), (16, 3), (17, 33), (32, 64), (64, 65), (40, 130)])
def test_wide_layers_fill_every_tile(channels, out):
    """K beyond one block of the cache, every width of column panel, more samples than are padded together."""
    rng = np.random.default_rng(channels)
    ints = [1, 1, 1, 1, 1, 1, 1, 1, 1]
    plan = Plan(
        [5, 7, channels],
        [Node("conv", [0], [0, 1], ints)],
        [Param("w", [3, 3, channels, out]), Param("b", [out])],
        "mse",
        1,
        1,
    )
    net = _core.Net(plan, 20)
    params = rng.normal(0, 0.1, plan.num_params).astype(np.float32)
    x, y = (
        rng.normal(0, 1, (19, 5, 7, channels)).astype(np.float32),
        rng.normal(0, 1, (19, 5, 7, out)).astype(np.float32),
    )
    w, b = np.split(np.float64(params), [plan.params[0].size])
    expected = FORWARDS["conv"](plan.nodes[0], np.float64(x), w.reshape(3, 3, channels, out), b)
    got, gradient = np.empty_like(y), np.empty_like(params)
    net.predict(params, x.ravel(), got.reshape(-1))
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())
    net.gradient(params, x.ravel(), y.ravel(), gradient)
    d = 2 * (expected - y) / y.size
    padded = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    dw = [[np.einsum("bijc,bijo->co", padded[:, i : i + 5, j : j + 7], d) for j in range(3)] for i in range(3)]
    reference = np.concatenate([np.ravel(dw), d.sum((0, 1, 2))])
    np.testing.assert_allclose(gradient, reference, atol=1e-4 * np.abs(reference).max())


def test_fused_equals_buffered():
    fused_equals_buffered(conv_plan((5, 6, 3), (3, 3), 4, stride=(2, 1), pads=(1, 1, 1, 1)))
    fused_equals_buffered(depthwise_plan((5, 6, 3), (3, 3), 2, pads=(1, 1, 1, 1)))


WINDOWS_SCRIPT = """
import sys
import numpy as np
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

params = [Param("w", [5, 3, 3, 37]), Param("b", [37]), Param("d", [3, 3, 74]), Param("p", [1, 1, 74, 19])]
nodes = [
    Node("conv", [0], [0, 1], [1, 2, 2, 1, 2, 1, 1, 1, 1]),
    Node("maxpool", [1], [], [2, 3, 2, 1, 0, 1, 0, 1]),
    Node("depthwise", [2], [2], [2, 1, 1, 1, 1, 1, 1, 1]),
    Node("conv", [3], [3], [1, 1, 0, 0, 0, 0, 1, 1, 1]),
    Node("avgpool", [4], [], [3, 3, 1, 1, 1, 1, 1, 1, 0]),
    Node("flatten", [5]),
]
plan = Plan([11, 13, 3], nodes, params, "cross_entropy", 6, 6)
rng = np.random.default_rng(0)
w = rng.standard_normal(plan.num_params).astype(np.float32) * 0.2
x, y = rng.standard_normal((21, 11, 13, 3)).astype(np.float32), rng.integers(0, 10, 21)
trainer = Trainer(plan)
result = trainer.fit(w, x, y, epochs=2, lr=0.01, momentum=0.9, seed=3)
print(trainer.isa, file=sys.stderr)
sys.stdout.buffer.write(result.delta.tobytes() + trainer.predict(w, x).tobytes())
"""


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_each_instruction_set_agrees_with_the_baseline(isa):
    name, got = run(isa, WINDOWS_SCRIPT)
    baseline, expected = run("baseline", WINDOWS_SCRIPT)
    assert (name, baseline) == (isa, "baseline")
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


GOOD = [1, 1, 0, 0, 0, 0, 1, 1, 1]
HUGE = 1 << 62


@pytest.mark.parametrize("place", range(9))
@pytest.mark.parametrize("value", [0, -1, 2**20 + 1, HUGE, -HUGE, 2**63 - 1, -(2**63)])
def test_hostile_attributes(place, value):
    if value == 0 and 2 <= place < 6:
        return
    ints = [*GOOD[:place], value, *GOOD[place + 1 :]]
    with pytest.raises(ModelError, match=r"node 0 \(conv\)"):
        _core.Net(Plan([4, 4, 2], [Node("conv", [0], [0], ints)], [Param("w", [2, 2, 2, 2])], "mse", 1, 1), 1)
    if place < 8:
        with pytest.raises(ModelError, match=r"node 0 \(depthwise\)"):
            _core.Net(Plan([4, 4, 2], [Node("depthwise", [0], [0], ints[:8])], [Param("w", [2, 2, 2])], "mse", 1, 1), 1)


@pytest.mark.parametrize(
    "op,shape,weight,bias,ints,why",
    [
        ("conv", [4, 4, 2], [5, 2, 2, 3], None, GOOD, "larger than the padded input"),
        ("conv", [4, 4, 2], [2, 2, 3, 3], None, GOOD, "C / groups"),
        ("conv", [4, 4, 6], [2, 2, 2, 3], None, [*GOOD[:8], 2], "C / groups"),
        ("conv", [4, 4, 6], [2, 2, 3, 3], None, [*GOOD[:8], 2], "groups dividing"),
        ("conv", [4, 4, 2], [2, 2, 2, 3], [4], GOOD, "bias"),
        ("conv", [4, 2], [2, 2, 2, 3], None, GOOD, "4 axes"),
        ("conv", [4, 4, 2], [2, 2, 2], None, GOOD, "4 axes"),
        ("conv", [4, 4, 2], [2, 2, 2, 2], None, GOOD[:8], "wrong number"),
        ("conv", [900, 900, 900], [1, 1, 900, 1], None, [1, 1, 900, 900, 900, 900, 1, 1, 1], "too large"),
        ("depthwise", [4, 4, 2], [2, 2, 3], None, GOOD[:8], "multiple of C"),
        ("depthwise", [4, 4, 2], [2, 2, 4], [2], GOOD[:8], "bias"),
        ("depthwise", [4, 4, 2], [2, 2, 2, 2], None, GOOD[:8], "multiple of C"),
        ("depthwise", [4, 4, 2], [9, 2, 2], None, GOOD[:8], "larger than the padded input"),
        ("depthwise", [999, 999, 999], [1, 1, 2997], None, GOOD[:8], "too large"),
    ],
)
def test_malformed(op, shape, weight, bias, ints, why):
    params = [Param("w", weight)] + ([Param("b", bias)] if bias else [])
    with pytest.raises(ModelError, match=why):
        _core.Net(Plan(shape, [Node(op, [0], list(range(len(params))), ints)], params, "mse", 1, 1), 1)
