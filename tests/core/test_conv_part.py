"""conv_part against float64 NumPy, and against the conv or dense layer whose weight it has in two parts."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, fused_equals_buffered
from plan_reference import FORWARD

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import ModelError

WINDOW = [1, 1, 0, 0, 0, 0, 1, 1]
SAME = [1, 1, 1, 1, 1, 1, 1, 1]
# shape, kernel, outputs, trained channels, window
CASES = {
    "1x1": ((4, 3, 5), (1, 1), 6, (1, 3), WINDOW),
    "3x3 same": ((5, 6, 3), (3, 3), 4, (0,), SAME),
    "stride 2": ((6, 6, 4), (3, 3), 3, (3,), [2, 2, 0, 0, 1, 1, 1, 1]),
    "1x1 stride 2": ((5, 5, 3), (1, 1), 4, (0, 2), [2, 2, 0, 0, 0, 0, 1, 1]),
    "dilation": ((7, 8, 3), (3, 2), 3, (1, 2), [1, 1, 2, 1, 1, 2, 2, 3]),
    "all but one": ((2, 2, 5), (1, 1), 3, (0, 1, 2, 3), WINDOW),
    "bits in two words": ((1, 2, 70), (1, 1), 3, (0, 51, 52, 53, 69), WINDOW),
    "many outputs": ((3, 3, 17), (2, 2), 19, (0, 1, 8, 16), [1, 1, 1, 0, 0, 1, 1, 1]),
    "dense": ((5,), (), 4, (1, 4), WINDOW),
    "dense of steps": ((3, 6), (), 2, (0, 1, 5), WINDOW),
}


def words(channels, trained):
    return [sum(1 << i - first for i in trained if first <= i < first + 52) for first in range(0, channels, 52)]


def parts(shape, kernel, out, trained, window, *, bias=True):
    """dense -> conv_part -> mse: x has a gradient, too."""
    channels = shape[-1]
    params = [Param("front", [channels, channels]), Param("t", [*kernel, len(trained), out])]
    params += [Param("b", [out])] * bias
    params.append(Param("f", [*kernel, channels - len(trained), out], False))
    order = [1, len(params) - 1, *([2] if bias else [])]
    nodes = [Node("dense", [0], [0]), Node("conv_part", [1], order, [*window, *words(channels, trained)])]
    return Plan(list(shape), nodes, params, "mse", 2, 2)


def whole(shape, kernel, out, trained, window, *, bias=True):
    """The same net with the weight in one."""
    params = [Param("front", [shape[-1], shape[-1]]), Param("w", [*kernel, shape[-1], out])] + [
        Param("b", [out])
    ] * bias
    node = (
        Node("conv", [1], list(range(1, len(params))), [*window, 1])
        if kernel
        else Node("dense", [1], [1, 2][: 1 + bias])
    )
    return Plan(list(shape), [Node("dense", [0], [0]), node], params, "mse", 2, 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name, bias):
    check(parts(*CASES[name], bias=bias), FORWARD)


@pytest.mark.parametrize("least", [False, True])
@pytest.mark.parametrize(
    "case",
    [
        *CASES.values(),
        ((6, 8, 40), (3, 3), 36, tuple(range(0, 40, 3)), SAME),
        ((8, 8, 300), (1, 1), 200, (5, 99), WINDOW),
    ],
)
def test_the_trained_part_moves_as_in_a_whole_weight(case, least):
    """Forward has a conv's bits, and each gradient is its slice of the whole's; under the least arena, too."""
    shape, kernel, out, trained, _ = case
    rng = np.random.default_rng(1)
    halves, one = parts(*case), whole(*case)
    w = rng.normal(0, 0.2, one.params[1].shape).astype(np.float32)
    front, b = rng.normal(0, 0.3, shape[-1] ** 2).astype(np.float32), rng.normal(size=out).astype(np.float32)
    x, y = (rng.normal(size=(9, *s)).astype(np.float32) for s in (shape, _core.Net(one, 1).shapes[2]))
    others = np.setdiff1d(np.arange(shape[-1]), trained)
    t, f = (np.ascontiguousarray(w[..., list(some), :]) for some in (trained, others))
    mine, theirs = np.concatenate([front, t.ravel(), b, f.ravel()]), np.concatenate([front, w.ravel(), b])
    limit = _core.plan_needs(halves, 9)[1] if least else None
    trainer = Trainer(halves, batch=9, max_arena_bytes=limit)
    got, expected = trainer.gradient(mine, x, y), Trainer(one, batch=9).gradient(theirs, x, y)
    front_got, t_got, b_got, f_got = np.split(got, np.cumsum([front.size, t.size, b.size]))
    front_all, w_all, b_all = np.split(expected, np.cumsum([front.size, w.size]))
    scale = np.abs(expected).max()
    if kernel:
        np.testing.assert_array_equal(trainer.predict(mine, x), Trainer(one).predict(theirs, x))
        np.testing.assert_array_equal(front_got, front_all)
    np.testing.assert_allclose(front_got, front_all, atol=1e-6 * scale)
    np.testing.assert_allclose(t_got.reshape(t.shape), w_all.reshape(w.shape)[..., list(trained), :], atol=1e-6 * scale)
    np.testing.assert_allclose(b_got, b_all, atol=1e-6 * scale)
    assert not f_got.any()


def test_fused_equals_buffered():
    fused_equals_buffered(parts(*CASES["3x3 same"]))
    fused_equals_buffered(parts(*CASES["dense of steps"]))


def test_the_arena_has_the_trained_channels_alone():
    """Ten layers, each after a bit for each element of a clip: what is kept of x shrinks with the channels."""

    def arena(trained):
        params, nodes, frozen = [], [], []
        for i in range(10):
            node = Node("conv", [2 * i], [], [*WINDOW, 1])
            if 0 < len(trained) < 64:
                params.append(Param(f"t{i}", [1, 1, len(trained), 64]))
                frozen.append(Param(f"f{i}", [1, 1, 64 - len(trained), 64], False))
                node = Node("conv_part", [2 * i], [i, 10 + i], [*WINDOW, *words(64, trained)])
            else:
                params.append(Param(f"w{i}", [1, 1, 64, 64]))
                node = Node("conv", [2 * i], [i], [*WINDOW, 1])
            nodes += [node, Node("clip", [2 * i + 1], [], [], [0.0, 6.0])]
        return Trainer(Plan([16, 16, 64], nodes, [*params, *frozen], "mse", 20, 20), batch=4).arena_bytes

    image = 4 * 16 * 16 * 64 * 4  # bytes of a value
    least = arena(range(1))
    assert arena(range(64)) - least > 6 * image
    assert arena(range(32)) - arena(range(16)) == pytest.approx(10 * image / 4, rel=0.25)


GOOD = parts(*CASES["bits in two words"])


@pytest.mark.parametrize(
    "ints",
    [
        WINDOW, [*WINDOW, 1], [*WINDOW, 0, 0], [*WINDOW, -1, 0], [*WINDOW, 31, 1 << 18], [*WINDOW, 1 << 52, 15],
        [*WINDOW, 31, 0, 0], [*WINDOW, 2**63 - 1, 2**63 - 1], [1, 1, 2**62, 0, 0, 0, 1, 1, 31, 0],
    ],
)  # fmt: skip
def test_hostile_words(ints):
    nodes = [GOOD.nodes[0], Node("conv_part", [1], [1, 3, 2], ints)]
    with pytest.raises(ModelError, match=r"node 1 \(conv_part\)"):
        _core.Net(Plan(GOOD.input_shape, nodes, GOOD.params, "mse", 2, 2), 1)


@pytest.mark.parametrize(
    "shape,t,f,b,why",
    [
        ([4, 4, 3], [1, 1, 1, 2], [1, 1, 1, 2], None, "share the channels"),
        ([4, 4, 3], [1, 1, 1, 2], [1, 2, 2, 2], None, "share the channels"),
        ([4, 4, 3], [1, 1, 1, 2], [1, 1, 2, 3], None, "share the channels"),
        ([4, 4, 3], [1, 1, 1, 2], [2, 2], None, "share the channels"),
        ([4, 4, 3], [1, 1, 2], [1, 2, 2], None, "weights of 4 axes"),
        ([4, 3], [1, 1, 1, 2], [1, 1, 2, 2], None, "weights of 4 axes"),
        ([4, 4, 3], [1, 1, 1, 2], [1, 1, 2, 2], [3], "needs a bias"),
        ([4, 4, 3], [5, 1, 1, 2], [5, 1, 2, 2], None, "larger than the padded input"),
        ([4, 4, 3], [2, 1, 1, 2], [2, 1, 2, 2], None, None),
    ],
)
def test_malformed(shape, t, f, b, why):
    params = [Param("t", t), *([Param("b", b)] if b else []), Param("f", f, False)]
    order = [0, len(params) - 1, *([1] if b else [])]
    plan = Plan(shape, [Node("conv_part", [0], order, [*WINDOW, 2])], params, "mse", 1, 1)
    if why is None:
        _core.Net(plan, 2)
        return
    with pytest.raises(ModelError, match=why):
        _core.Net(plan, 2)


def test_a_dense_layer_has_no_window():
    params = [Param("t", [1, 2]), Param("f", [2, 2], False)]
    same_size = ([1, 2, 0, 0, 0, 3, 1, 1], [2, 1, 0, 0, 1, 0, 1, 1], [1, 1, 0, 0, 0, 0, 1, 2])
    for window in ([1, 2, *WINDOW[2:]], [1, 1, 0, 1, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0, 1, 1], *same_size):
        plan = Plan([4, 3], [Node("conv_part", [0], [0, 1], [*window, 2])], params, "mse", 1, 1)
        with pytest.raises(ModelError, match="one pixel"):
            _core.Net(plan, 2)


def test_plans_survive_their_bytes():
    assert Plan.from_bytes(GOOD.to_bytes()) == GOOD and Plan.from_bytes(GOOD.to_bytes()).hash == GOOD.hash
