"""conv_transpose against float64 NumPy: values, every gradient, every attribute, and the plans that are refused."""

from __future__ import annotations

import pytest
from gradcheck import check, fused_equals_buffered
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.errors import ModelError

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


def plan_of(image, kernel, channels, out, *, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True):
    """From as many pixels as windows fit in `image` (H, W) to that image: dense -> conv_transpose -> mse."""
    size = [(image[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1)]
    params = [Param("front", [channels] * 2), Param("w", [*kernel, out // groups, channels])]
    params += [Param("b", [out])] * bias
    ints = [*stride, *pads, *dilation, groups, *image]
    nodes = [Node("dense", [0], [0]), Node("conv_transpose", [1], list(range(1, len(params))), ints)]
    return Plan([*size, channels], nodes, params, "mse", 2, 2)


FORMS = {
    "doubled": ((8, 6), (2, 2), 3, 4, dict(stride=(2, 2))),
    "overlapping": ((9, 7), (3, 3), 2, 3, dict(stride=(2, 2), pads=(1, 1, 1, 1))),
    "beyond the last window": ((10, 8), (3, 3), 2, 3, dict(stride=(2, 2), pads=(1, 1, 1, 1))),
    "gaps that hold the bias alone": ((9, 11), (1, 2), 3, 2, dict(stride=(3, 4))),
    "uneven pads": ((7, 6), (4, 3), 2, 3, dict(stride=(2, 3), pads=(2, 0, 1, 2))),
    "dilation": ((9, 10), (3, 2), 2, 3, dict(dilation=(2, 3), pads=(1, 2, 2, 0))),
    "dilation and stride with a common divisor": ((13, 9), (3, 2), 2, 2, dict(stride=(4, 2), dilation=(2, 4))),
    "groups": ((8, 6), (3, 2), 4, 6, dict(stride=(2, 1), groups=2)),
    "each channel by itself": ((8, 8), (2, 2), 3, 3, dict(stride=(2, 2), groups=3, bias=False)),
    "one-dimensional": ((1, 17), (1, 5), 3, 4, dict(stride=(1, 3), pads=(0, 2, 0, 1))),
    "19 channels": ((5, 4), (3, 3), 19, 17, {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_conv_transpose(name):
    image, kernel, channels, out, options = FORMS[name]
    check(plan_of(image, kernel, channels, out, **options), FORWARD)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    pairs,
    st.tuples(*[st.integers(1, 3)] * 3),
    st.fixed_dictionaries(
        {"stride": pairs, "dilation": pairs, "pads": st.tuples(*[st.integers(0, 3)] * 4), "bias": st.booleans()}
    ),
)
def test_any_window(image, kernel, counts, options):
    channels, out, groups = counts
    padded = [image[i] + options["pads"][i] + options["pads"][i + 2] for i in (0, 1)]
    if all(padded[i] > (kernel[i] - 1) * options["dilation"][i] for i in (0, 1)):
        check(plan_of(image, kernel, channels * groups, out * groups, groups=groups, **options), FORWARD, samples=2)


def test_frozen_ones_keep_no_input():
    """What is in front of them is a bit an element, of relu."""

    def frozen(depth):
        nodes, size, channels = [Node("dense", [0], [0])], 6, 4
        for layer in range(depth):
            ints = [1, 1, 0, 0, 0, 0, 1, 1, 1, size, size]
            nodes += [Node("relu", [len(nodes)]), Node("conv_transpose", [len(nodes) + 1], [layer + 1], ints)]
        params = [Param("front", [channels] * 2)]
        params += [Param(f"w{layer}", [1, 1, channels, channels], False) for layer in range(depth)]
        return Plan([size, size, channels], nodes, params, "mse", len(nodes), len(nodes))

    check(frozen(3), FORWARD)
    value = 4 * 6 * 6 * 4 * 32
    assert _core.Net(frozen(13), 32).arena_bytes - _core.Net(frozen(3), 32).arena_bytes < 10 * value / 16


def test_fused_equals_buffered():
    fused_equals_buffered(plan_of((8, 7), (3, 3), 3, 4, stride=(2, 2), pads=(1, 1, 1, 0)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({9: 20}, "as many as its input's pixels"),
        ({9: 0}, "empty or too large"),
        ({10: 2**40}, "empty or too large"),
        ({8: 0}, "groups dividing"),
        ({8: 2**62}, "groups dividing"),
        ({2: -1}, "pads of 0"),
        ({0: 0}, "strides"),
    ],
)
def test_a_wrong_plan_is_refused(change, says):
    plan = plan_of((8, 6), (2, 2), 3, 4, stride=(2, 2))
    for at, value in change.items():
        plan.nodes[1].ints[at] = value
    with pytest.raises(ModelError, match=rf"conv_transpose\): .*{says}"):
        _core.Net(plan)
