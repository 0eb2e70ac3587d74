"""batch_norm, layer_norm and dropout: gradients, running statistics, masks, and malformed plans refused."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import check, close, fused_equals_buffered, numeric_gradient, one_op
from gradcheck import run as run_numpy

from edgefl import _core
from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import DataError, ModelError, UsageError

EPSILON, MOMENTUM = 1e-3, 0.9


def batch_norm(node, x, gamma, beta, mean, var):
    """In training: the batch's own statistics."""
    axes = tuple(range(x.ndim - 1))
    return (x - x.mean(axes)) / np.sqrt(x.var(axes) + node.floats[0]) * gamma + beta


def batch_norm_running(node, x, gamma, beta, mean, var):
    return (x - mean) / np.sqrt(var + node.floats[0]) * gamma + beta


def layer_norm(node, x, gamma, beta):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + node.floats[0]) * gamma + beta


def bn_plan(shape, front=True):
    c = shape[-1]
    own = [Param("gamma", [c]), Param("beta", [c]), Param("mean", [c], False), Param("var", [c], False)]
    floats = [EPSILON, MOMENTUM]
    if front:
        return one_op("batch_norm", shape, own, floats=floats)
    return Plan(shape, [Node("batch_norm", [0], [0, 1, 2, 3], [], floats)], own, "mse", 1, 1)


def positive_var(plan, seed=0):
    params = np.random.default_rng(seed).normal(0, 0.5, plan.num_params).astype(np.float32)
    params[-plan.params[-1].size :] = np.abs(params[-plan.params[-1].size :]) + 0.1
    return params


SHAPES = [[1], [3], [16], [17], [33], [5, 3], [4, 4, 6], [3, 5, 16], [2, 3, 24], [1, 2, 130], [7, 1]]


@pytest.mark.parametrize("front", [True, False])
@pytest.mark.parametrize("samples", [2, 3, 11])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm_gradients(shape, samples, front):
    plan = bn_plan(shape, front)
    forwards = {"batch_norm": batch_norm}
    check(plan, forwards, samples=samples, batch=samples, params=positive_var(plan), compare_predict=False)
    fused_equals_buffered(plan)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batch_norm_predicts_with_running_statistics(shape):
    plan = bn_plan(shape)
    params = positive_var(plan)
    x = np.random.default_rng(2).normal(0, 1, (11, *shape)).astype(np.float32)
    exact = run_numpy(plan, {"batch_norm": batch_norm_running, "dense": lambda node, x, w: x @ w}, params, x, 2)
    for batch in (1, 4, 11):
        close(Trainer(plan, batch=batch).predict(params, x), exact, 1e-5)


@pytest.mark.parametrize("far", [0, 30, 3000])
def test_statistics_are_good_wherever_the_mean_is(far):
    """Sums of squares about 0 would lose every digit of the variance here."""
    rng = np.random.default_rng(3)
    x = (rng.normal(0, 1, (32, 12, 12, 16)) + far).astype(np.float32)
    plan = bn_plan([12, 12, 16], front=False)
    params = np.concatenate([np.ones(16), np.zeros(32), np.ones(16)]).astype(np.float32)
    delta = Trainer(plan, batch=32).fit(params, x, np.zeros_like(x), batch_size=32, lr=0.0).delta
    rows = np.float64(x).reshape(-1, 16)
    assert np.allclose(delta[32:48], 0.1 * rows.mean(0), rtol=1e-5, atol=1e-6)
    assert np.allclose(delta[48:], 0.1 * (rows.var(0, ddof=1) - 1), rtol=0, atol=2e-6)


def test_running_statistics_follow_pytorchs_rule():
    plan = bn_plan([2, 5], front=False)
    rng = np.random.default_rng(4)
    x = rng.normal(1, 2, (12, 2, 5)).astype(np.float32)
    params = positive_var(plan)
    mean, var = np.float64(params[10:15]), np.float64(params[15:])
    result = Trainer(plan, batch=4).fit(params, x, np.zeros_like(x), batch_size=4, epochs=2, lr=0.0, seed=9)
    for epoch in range(2):
        order = _core.permutation(12, 9, epoch)
        for at in range(0, 12, 4):
            rows = np.float64(x[order[at : at + 4]]).reshape(-1, 5)
            mean = MOMENTUM * mean + (1 - MOMENTUM) * rows.mean(0)
            var = MOMENTUM * var + (1 - MOMENTUM) * rows.var(0, ddof=1)
    close(params[10:] + result.delta[10:], np.concatenate([mean, var]), 1e-5)
    assert not result.delta[:10].any()


def test_one_value_a_channel_normalizes_to_beta_and_leaves_the_running_statistics():
    plan = bn_plan([4], front=False)
    params = positive_var(plan)
    result = Trainer(plan).fit(params, np.ones((1, 4)), np.zeros((1, 4)), lr=0.0)
    assert not result.delta.any()
    assert result.loss == pytest.approx(np.mean(np.float64(params[4:8]) ** 2), rel=1e-5)


def test_gradient_evaluate_and_predict_leave_the_state_alone():
    plan = bn_plan([3])
    params = positive_var(plan)
    before, x = params.copy(), np.random.default_rng(0).normal(0, 1, (7, 3))
    trainer = Trainer(plan, batch=7)
    assert not trainer.gradient(params, x, x)[-6:].any()
    trainer.evaluate(params, x, x)
    trainer.predict(params, x)
    assert (params == before).all()


def test_a_batch_that_is_too_large_for_the_net_is_refused():
    plan = bn_plan([3])
    net, params, x = _core.Net(plan, 4), positive_var(plan), np.zeros(15, np.float32)
    assert net.mixes_samples
    with pytest.raises(UsageError, match="all 5 samples of a batch at once, the net holds 4"):
        net.gradient(params, x, x, np.empty_like(params))
    assert Trainer(plan, batch=4).gradient(params, np.zeros((5, 3)), np.zeros((5, 3))).shape == params.shape


def test_batch_norm_of_nan_is_nan():
    plan = bn_plan([3], front=False)
    out = np.empty(3, np.float32)
    _core.Net(plan, 1).predict(positive_var(plan), np.float32([0, np.nan, 1]), out)
    assert np.isnan(out).tolist() == [False, True, False]
    with pytest.raises(DataError):
        Trainer(plan).predict(positive_var(plan), [[0, np.nan, 1]])


# ---- layer_norm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[1], [2], [3], [16], [17], [65], [5, 3], [2, 3, 24]], ids=str)
def test_layer_norm(shape):
    plan = one_op("layer_norm", shape, [Param("gamma", [shape[-1]]), Param("beta", [shape[-1]])], floats=[EPSILON])
    check(plan, {"layer_norm": layer_norm}, tolerance=2e-4)
    fused_equals_buffered(plan)


def test_layer_norm_right_at_the_input():
    plan = Plan([9], [Node("layer_norm", [0], [0, 1], [], [EPSILON])], [Param("g", [9]), Param("b", [9])], "mse", 1, 1)
    check(plan, {"layer_norm": layer_norm})
    frozen = Plan([9], plan.nodes, [Param("g", [9]), Param("b", [9], False)], "mse", 1, 1)
    check(frozen, {"layer_norm": layer_norm})


# ---- dropout --------------------------------------------------------------------------------------------------


def dropped(x, ratio=0.25, seed=0, batch=32, **options):
    """What one step of lr 1 on the mean of |b + mask x - target| tells of the mask: b's gradient is the mask's mean."""
    nodes = [Node("add", [0], [0], [0]), Node("dropout", [1], [], [], [ratio])]
    plan = Plan(list(x.shape[1:]), nodes, [Param("b", list(x.shape[1:]))], "l1", 2, 2)
    result = Trainer(plan, batch=batch).fit(
        np.zeros(plan.num_params), x, np.full_like(x, 100), lr=1.0, seed=seed, batch_size=len(x), **options
    )
    return result.delta.reshape(x.shape[1:]) * x.size


def test_dropout_draws_a_share_of_zeros_and_scales_the_others():
    kept = dropped(np.ones((1, 40_000), np.float32))
    assert set(np.unique(np.round(kept, 2))) == {0.0, np.float32(1.33)}
    assert np.mean(kept == 0) == pytest.approx(0.25, abs=0.01)
    halves = kept.reshape(2, -1) == 0  # neighbours and the two halves are independent of one another
    assert np.mean(halves[0] & halves[1]) == pytest.approx(0.0625, abs=0.01)
    assert np.mean((kept[1:] == 0) & (kept[:-1] == 0)) == pytest.approx(0.0625, abs=0.01)


def test_dropout_masks_differ_by_sample_and_seed_and_not_by_pieces():
    x = np.ones((8, 500), np.float32)
    whole = dropped(x)
    assert len(np.unique(np.round(whole))) > 3, "samples have masks of their own"
    assert np.allclose(whole, dropped(x, batch=3), atol=1e-3)
    assert (whole == dropped(x)).all()
    assert (whole != dropped(x, seed=1)).mean() > 0.3


def test_dropout_gradient_goes_where_the_value_went():
    """The mask of backward is forward's: the loss falls by exactly what the gradient says."""
    nodes = [Node("dense", [0], [0]), Node("dropout", [1], [], [], [0.5]), Node("dense", [2], [1])]
    plan = Plan([3], nodes, [Param("w", [3, 64]), Param("v", [64, 1])], "mse", 3, 3)
    params = np.random.default_rng(0).normal(0, 0.5, plan.num_params)
    x, y = np.ones((1, 3), np.float32), np.zeros((1, 1), np.float32)
    trainer = Trainer(plan)
    delta = np.float64(trainer.fit(params, x, y, lr=1e-3, seed=5).delta)
    mask = 2.0 * (delta[192:] != 0)
    assert 10 < np.count_nonzero(mask) < 54

    def loss(p):
        return float((np.ones(3) @ p[:192].reshape(3, 64) * mask @ p[192:]) ** 2)

    close(delta, -1e-3 * numeric_gradient(loss, params, len(params)), 1e-4)


def test_dropout_is_nothing_outside_of_fit():
    nodes = [Node("dense", [0], [0]), Node("dropout", [1], [], [], [0.5])]
    plan = Plan([5], nodes, [Param("w", [5, 4])], "mse", 2, 2)
    check(plan, {"dropout": lambda node, x: x})
    assert (dropped(np.ones((1, 100), np.float32), ratio=0.0) == 1).all()


# ---- plans ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "says"),
    [
        (Node("batch_norm", [0], [0, 0, 0], [], [1e-5, 0.9]), "wrong number"),
        (Node("batch_norm", [0], [0, 0, 0, 0], [], [1e-5]), "wrong number"),
        (Node("batch_norm", [0], [0, 0, 0, 1], [], [1e-5, 0.9]), r"needs params \(C\)"),
        (Node("batch_norm", [0], [0, 2, 0, 0], [], [1e-5, 0.9]), r"needs params \(C\)"),
        (Node("batch_norm", [0], [0, 0, 0, 0], [], [-1e-5, 0.9]), "epsilon of 0"),
        (Node("batch_norm", [0], [0, 0, 0, 0], [], [float("nan"), 0.9]), "epsilon of 0"),
        (Node("batch_norm", [0], [0, 0, 0, 0], [], [1e-5, 1.1]), "momentum of 0"),
        (Node("batch_norm", [1], [0, 0, 0, 0], [], [1e-5, 1.1]), "axis of channels"),
        (Node("layer_norm", [0], [0], [], [1e-5]), "wrong number"),
        (Node("layer_norm", [0], [0, 1], [], [1e-5]), r"needs params \(C\)"),
        (Node("layer_norm", [1], [0, 0], [], [1e-5]), "axis of channels"),
        (Node("layer_norm", [0], [0, 0], [], [float("inf")]), "epsilon of 0"),
        (Node("dropout", [0], [], [], [1.0]), "ratio of 0"),
        (Node("dropout", [0], [], [], [-0.1]), "ratio of 0"),
        (Node("dropout", [0], [], [], [float("nan")]), "ratio of 0"),
    ],
)
def test_malformed_plans_are_refused(node, says):
    params = [Param("a", [3]), Param("b", [4]), Param("c", [1, 3])]
    with pytest.raises(ModelError, match=says):
        _core.Net(Plan([2, 3], [Node("mean", [0], [], [0, 1]), node], params, "mse", 2, 2), 1)
