"""Trainer: results, the checks an operator meets, cancelling, threads."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest

from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Cancelled, Diverged, Trainer
from edgefl.errors import DataError, UsageError


def make_plan(loss="cross_entropy", classes=3):
    return Plan(
        [2, 4],
        [Node("flatten", [0]), Node("dense", [1], [0, 1]), Node("relu", [2]), Node("dense", [3], [2])],
        [Param("w", [8, 16]), Param("b", [16]), Param("v", [16, classes])],
        loss,
        4,
        4,
    )


PLAN = make_plan()
rng = np.random.default_rng(0)
PARAMS = rng.standard_normal(PLAN.num_params).astype(np.float32) * 0.3
Y = np.arange(60) % 3
X = (rng.standard_normal((60, 2, 4)) + 2 * np.eye(3)[Y].repeat(8 // 2, 1).reshape(60, 3, 4)[:, :2]).astype(np.float32)


@pytest.fixture
def trainer():
    return Trainer(PLAN)


def test_training_learns(trainer):
    before = trainer.evaluate(PARAMS, X, Y)
    result = trainer.fit(PARAMS, X, Y, epochs=20, lr=0.1)
    after = trainer.evaluate(PARAMS + result.delta, X, Y)
    assert (result.num_examples, result.steps) == (60, 120)
    assert after.loss < 0.5 * before.loss
    assert after.accuracy > 0.9
    assert after.num_examples == 60
    assert after.loss == pytest.approx(result.loss, rel=0.3)


def test_same_seed_same_bits_and_another_seed_other_bits(trainer):
    bits = [trainer.fit(PARAMS, X, Y, momentum=0.9, seed=seed).delta.tobytes() for seed in (1, 1, 2, -1)]
    assert bits[0] == bits[1] == Trainer(PLAN).fit(PARAMS, X, Y, momentum=0.9, seed=1).delta.tobytes()
    assert len(set(bits)) == 3


def test_delta_lies_on_the_grid_of_the_accumulator(trainer):
    delta = np.float64(trainer.fit(PARAMS, X, Y, lr=1e-3).delta) * 2**30
    assert (delta == np.rint(delta)).all()
    assert delta.any()


def test_max_steps_and_epochs(trainer):
    assert trainer.fit(PARAMS, X, Y, max_steps=4, epochs=3).steps == 4
    assert trainer.fit(PARAMS, X, Y, max_steps=400, epochs=3).steps == 18
    assert trainer.fit(PARAMS, X, Y, batch_size="all", epochs=3).steps == 3
    assert trainer.fit(PARAMS, X, Y, batch_size=59).steps == 2


def test_state_is_not_trained():
    state = Param("v", [16, 3], False)
    trainer = Trainer(Plan([2, 4], PLAN.nodes, [*PLAN.params[:2], state], "cross_entropy", 4, 4))
    result = trainer.fit(PARAMS, X, Y, weight_decay=0.1, momentum=0.5, prox_mu=0.1)
    assert not result.delta[-48:].any()
    assert not trainer.gradient(PARAMS, X, Y)[-48:].any()
    assert result.delta[:-48].any()


def test_other_dtypes_and_layouts_give_the_same_and_stay_untouched(trainer):
    expected = trainer.fit(PARAMS, X, Y).delta
    wide = np.repeat(X, 2, axis=2).astype(np.float64)[:, :, ::2]
    copies = PARAMS.astype(np.float64), wide.copy(), Y.astype(np.uint8)
    for array in copies:
        array.flags.writeable = False
    assert (trainer.fit(*copies).delta == expected).all()
    assert (trainer.fit(list(PARAMS), np.asfortranarray(X), Y.tolist()).delta == expected).all()
    assert (trainer.fit(PARAMS, wide, Y).delta == expected).all()
    assert (wide == X).all()


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_float_targets(loss):
    plan = make_plan(loss, 1)
    trainer, params = Trainer(plan), PARAMS[: plan.num_params]
    y = (Y > 0).astype(np.float32)
    flat, column, integers = (trainer.evaluate(params, X, t) for t in (y, y[:, None], Y > 0))
    assert flat == column == integers
    logits = trainer.predict(params, X)
    assert logits.shape == (60, 1)
    assert flat.accuracy == (None if loss == "mse" else np.mean((logits[:, 0] >= 0) == (y >= 0.5)))


def test_accuracy_is_that_of_argmax(trainer):
    right = trainer.predict(PARAMS, X).argmax(1) == Y
    assert trainer.evaluate(PARAMS, X, Y).accuracy == right.mean()


def spoil(array, place, value):
    array = np.array(array, np.float64)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("params", "x", "y", "says"),
    [
        (PARAMS, X[:, 0], Y, r"x has shape \(60, 4\), the model takes \(n, 2, 4\)"),
        (PARAMS, 1.0, Y, r"x has shape \(\)"),
        (PARAMS, X[:0], Y[:0], "no samples"),
        (PARAMS, spoil(X, (3, 1, 2), np.nan), Y, r"x\[3, 1, 2\] is NaN, infinite"),
        (PARAMS, spoil(X, (3, 1, 2), 1e39), Y, "beyond float32"),
        (PARAMS, X.astype(str), Y, "real numbers"),
        (PARAMS, X * 1j, Y, "real numbers"),
        (PARAMS[:-1], X, Y, "params have shape"),
        (spoil(PARAMS, 7, np.inf), X, Y, r"params\[7\] is NaN"),
        (PARAMS, X, Y[:-1], "expected integer labels"),
        (PARAMS, X, Y[:, None], "expected integer labels"),
        (PARAMS, X, Y + 0.5, "integer labels: .*loss='mse'"),
        (PARAMS, X, Y + 1, r"label 3 of sample 2 is out of range 0\.\.2"),
        (PARAMS, X, Y - 1, "label -1 of sample 0 is out of range"),
        (PARAMS, X, Y.astype(np.uint64) + np.uint64(2**63), "out of range"),
    ],
)
def test_wrong_data_is_named(trainer, params, x, y, says):
    for call in (trainer.fit, trainer.gradient, trainer.evaluate):
        with pytest.raises(DataError, match=says):
            call(params, x, y)


@pytest.mark.parametrize(
    ("loss", "y", "says"),
    [
        ("mse", np.zeros((60, 2)), r"expected \(60, 3\)"),
        ("mse", np.zeros(60), r"expected \(60, 3\)"),
        ("mse", spoil(np.zeros((60, 3)), (2, 1), np.nan), r"y\[2, 1\] is NaN"),
        ("bce", np.full((60, 3), 1.5), "takes 0 to 1"),
    ],
)
def test_wrong_targets_are_named(loss, y, says):
    with pytest.raises(DataError, match=says):
        Trainer(make_plan(loss)).fit(PARAMS, X, y)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "prox_mu", "clip_norm"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_wrong_rates_are_named(trainer, name, value):
    with pytest.raises(UsageError, match=name):
        trainer.fit(PARAMS, X, Y, **{name: value})


@pytest.mark.parametrize("name", ["epochs", "batch_size", "max_steps"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_wrong_counts_are_named(trainer, name, value):
    with pytest.raises(UsageError, match=name):
        trainer.fit(PARAMS, X, Y, **{name: value})
    with pytest.raises(UsageError, match="max_arena_bytes"):
        Trainer(PLAN, max_arena_bytes=0)


@pytest.mark.parametrize(("name", "value"), [("lr", "0.1"), ("clip_norm", [1.0]), ("momentum", True), ("seed", 1.5)])
def test_value_of_a_wrong_type_is_wrong_use(trainer, name, value):
    with pytest.raises(UsageError, match=f"{name} is {re.escape(repr(value))}: give a"):
        trainer.fit(PARAMS, X, Y, **{name: value})


@pytest.mark.parametrize("lr", [1e30, 1e6])
def test_divergence_is_noticed(lr):
    with pytest.raises(Diverged, match="lower lr or standardise"):
        Trainer(make_plan("mse")).fit(PARAMS, X * 1e3, np.zeros((60, 3)), lr=lr, epochs=20)


def test_cancel_stops_a_running_fit(trainer):
    outcome = []

    def work():
        try:
            trainer.fit(PARAMS, X, Y, epochs=10**9)
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 10
    while thread.is_alive() and time.monotonic() < deadline:
        trainer.cancel()
        thread.join(0.01)
    assert len(outcome) == 1
    assert trainer.fit(PARAMS, X, Y).steps == 6, "a cancelled trainer trains again"


def test_trainers_in_threads_and_one_shared_give_the_same_bits(trainer):
    expected = trainer.fit(PARAMS, X, Y, epochs=30).delta
    results = []
    runners = [trainer, trainer, Trainer(PLAN), Trainer(PLAN)]
    threads = [
        threading.Thread(target=lambda t=t: results.append(t.fit(PARAMS, X, Y, epochs=30).delta)) for t in runners
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all((delta == expected).all() for delta in results)
