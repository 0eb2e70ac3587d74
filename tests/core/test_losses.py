"""Every loss: value, gradient, accuracy, extremes, sequences of labels, and what the Trainer takes for y."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import LOSSES as REFERENCE
from gradcheck import check, fused_equals_buffered, numeric_gradient

from edgefl.core.plan import LOSSES, Node, Param, Plan
from edgefl.core.trainer import Trainer
from edgefl.errors import DataError

OF_LABELS = ("cross_entropy", "hinge", "focal")


def linear(loss, wide, out, leading=()):
    nodes = [Node("dense", [0], [0, 1])]
    return Plan([*leading, wide], nodes, [Param("w", [wide, out]), Param("b", [out])], loss, 1, 1)


def identity(loss, shape):
    """The loss of x itself: b is 0."""
    return Plan(shape, [Node("add", [0], [0], [0])], [Param("b", shape)], loss, 1, 1)


def test_every_loss_has_a_reference():
    assert set(REFERENCE) == set(LOSSES)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("out", [1, 2, 3, 17, 100])
def test_gradients(loss, out):
    for samples in (1, 5):
        check(linear(loss, 4, out), {}, samples=samples, batch=3)
    fused_equals_buffered(linear(loss, 4, out))


@pytest.mark.parametrize("loss", OF_LABELS)
def test_a_label_for_every_step_of_a_sequence(loss):
    plan = linear(loss, 3, 5, leading=[4])
    check(plan, {})
    trainer, x = Trainer(plan), np.ones((2, 4, 3))
    assert trainer.evaluate(np.zeros(20), x, np.zeros((2, 4), int)).accuracy == 1.0
    with pytest.raises(DataError, match=r"expected integer labels \(2, 4\)"):
        trainer.evaluate(np.zeros(20), x, np.zeros(2, int))


@pytest.mark.parametrize("loss", ["l1", "huber", "mse"])
def test_losses_of_targets_on_both_sides_of_their_kinks(loss):
    """Errors from -3 to 3, so that Huber's linear part is reached; 0 has no slope."""
    errors = np.float32([-3, -1.01, -0.99, -0.2, 0, 0.3, 0.999, 1.001, 3]).reshape(1, 9)
    plan, y = identity(loss, [9]), np.random.default_rng(0).normal(0, 1, (1, 9)).astype(np.float32)
    trainer, x = Trainer(plan), (y + errors).astype(np.float32)
    exact = REFERENCE[loss](np.float64(x), np.float64(y))
    assert trainer.evaluate(np.zeros(9), x, y).loss == pytest.approx(exact, rel=1e-6)
    assert trainer.evaluate(np.zeros(9), x, y).accuracy is None
    slope = {"l1": np.sign(errors), "huber": np.clip(errors, -1, 1), "mse": 2 * errors}[loss] / 9
    assert np.allclose(trainer.gradient(np.zeros(9), x, y), slope[0], atol=1e-6)


@pytest.mark.parametrize("loss", OF_LABELS)
def test_accuracy_is_that_of_argmax(loss):
    x = np.random.default_rng(1).normal(0, 2, (50, 6)).astype(np.float32)
    y = np.random.default_rng(2).integers(0, 6, 50)
    result = Trainer(identity(loss, [6])).evaluate(np.zeros(6), x, y)
    assert result.accuracy == (x.argmax(1) == y).mean()
    assert result.loss == pytest.approx(REFERENCE[loss](np.float64(x), y), rel=1e-5)


def test_hinge_has_no_gradient_beyond_the_margin():
    trainer = Trainer(identity("hinge", [3]))
    assert trainer.gradient(np.zeros(3), [[5, 1, 3]], [0]).tolist() == [0, 0, 0]
    assert np.allclose(trainer.gradient(np.zeros(3), [[0, 0.5, -5]], [0]), [-1 / 3, 1 / 3, 0])
    assert trainer.evaluate(np.zeros(3), [[0, 0.5, -5]], [0]).loss == pytest.approx(0.5)


def test_focal_gradient_against_differences():
    x, y = np.float32([[2, -1, 0.5], [-3, 4, 1], [0.1, 0.2, 9]]), np.array([0, 0, 2])
    trainer = Trainer(identity("focal", [3]))
    exact = numeric_gradient(lambda b: REFERENCE["focal"](np.float64(x) + b, y), np.zeros(3), 3)
    assert np.allclose(trainer.gradient(np.zeros(3), x, y), exact, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_extremes_stay_finite(loss):
    x = np.float32([[1e4, -1e4, 0], [-1e4, 1e4, 1e4]])
    y = np.array([1, 0]) if loss in OF_LABELS else np.float32([[0, 1, 0.5], [1, 0, 0]])
    trainer = Trainer(identity(loss, [3]))
    assert np.isfinite(trainer.evaluate(np.zeros(3), x, y).loss)
    assert np.isfinite(trainer.gradient(np.zeros(3), x, y)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_training_and_evaluation_agree_on_the_loss(loss):
    rng = np.random.default_rng(3)
    plan = linear(loss, 5, 4)
    params, x = rng.normal(0, 1, plan.num_params), rng.normal(0, 1, (9, 5))
    y = rng.integers(0, 4, 9) if loss in OF_LABELS else rng.random((9, 4))
    trainer = Trainer(plan, batch=4)
    fitted = trainer.fit(params, x, y, lr=0.0, batch_size=3).loss
    assert fitted == pytest.approx(trainer.evaluate(params, x, y).loss, rel=1e-5)
    trained = trainer.fit(params, x, y, lr=0.1, epochs=40).delta
    assert trainer.evaluate(params + trained, x, y).loss < 0.9 * fitted


@pytest.mark.parametrize("loss", LOSSES)
def test_what_y_must_be_is_named(loss):
    trainer = Trainer(linear(loss, 2, 3))
    params, x = np.zeros(9), np.zeros((4, 2))
    if loss in OF_LABELS:
        with pytest.raises(DataError, match=f"loss '{loss}' takes integer labels"):
            trainer.fit(params, x, np.zeros(4))
        with pytest.raises(DataError, match="label 3 of sample 1 is out of range"):
            trainer.fit(params, x, [0, 3, 0, 0])
    else:
        with pytest.raises(DataError, match=r"expected \(4, 3\)"):
            trainer.fit(params, x, np.zeros((4, 2)))
