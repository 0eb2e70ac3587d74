"""The test set is evaluated on all threads, with scores that no number of threads changes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import edgefl
from edgefl.core.mask import Mask
from edgefl.core.trainer import Trainer
from edgefl.data import Dataset
from edgefl.onnx import zoo
from edgefl.simulation.evaluation import PIECE, Evaluator, evaluator

RNG = np.random.default_rng(2)
MODEL = edgefl.load(zoo.from_spec("mlp:20-16-5", 1))
N = 3 * PIECE + 101
X, Y = RNG.normal(size=(N, 20)).astype(np.float32), RNG.integers(0, 5, N)


@pytest.mark.parametrize("n", [1, 100, PIECE, PIECE + 1, N])
def test_scores_have_the_same_bits_for_any_number_of_threads(n):
    scores = {Evaluator(MODEL, X[:n], Y[:n], threads)(MODEL.params) for threads in (1, 2, 3, 9)}
    assert len(scores) == 1
    (score,) = scores
    whole = Trainer(MODEL.plan, batch=128).evaluate(MODEL.params, X[:n], Y[:n])
    assert score.accuracy == whole.accuracy
    assert score.loss == pytest.approx(whole.loss, rel=1e-14)


def test_targets_of_several_numbers_are_weighed_as_the_core_weighs_them():
    model = edgefl.load(zoo.from_spec("mlp:20-16-5", 1), loss="mse")
    y = RNG.normal(size=(N, 5)).astype(np.float32)
    whole = Trainer(model.plan, batch=128).evaluate(model.params, X, y)
    score = Evaluator(model, X, y, 3)(model.params)
    assert score.loss == pytest.approx(whole.loss, rel=1e-14) and score.accuracy is None


def test_every_thread_has_a_part(monkeypatch):
    seen, both = set(), threading.Barrier(2, timeout=60)
    evaluate = Trainer.evaluate

    def met(self, *arrays):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            both.wait()  # fails unless two are at work at once
        return evaluate(self, *arrays)

    monkeypatch.setattr(Trainer, "evaluate", met)
    Evaluator(MODEL, X, Y, 2)(MODEL.params)
    assert len(seen) == 2 and threading.get_ident() not in seen


def test_a_model_that_diverged_has_no_loss():
    assert Evaluator(MODEL, X, Y, 2)(np.full_like(MODEL.params, 1e30)).loss is None


def test_without_a_test_set_or_with_personal_params_there_are_no_scores():
    model, data = MODEL, Dataset(X[:50], Y[:50])
    none = evaluator(model, data, Mask(model.plan), 2)(model.params)
    assert (none.loss, none.accuracy) == (None, None)


def test_i33_a_target_is_reached_in_the_same_round_with_any_number_of_workers(monkeypatch):
    monkeypatch.setattr("edgefl.simulation.evaluation.PIECE", 64)
    options = {"devices": 8, "rounds": 20, "seed": 3, "lr": 0.3, "epochs": 2, "target_accuracy": 0.7}
    one, three = (edgefl.simulate("mlp:64-32-10", "digits", workers=workers, **options) for workers in (1, 3))
    assert 1 < len(one.rounds) < 20 and one.final.accuracy >= 0.7
    assert one.rounds == three.rounds and one.final == three.final
