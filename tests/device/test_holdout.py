"""Hold-out: the same examples always, never trained on, and evaluated on before training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import make_round

from edgefl import load
from edgefl.core.trainer import Cancelled
from edgefl.device.events import TrainJob
from edgefl.device.holdout import MIN_EXAMPLES, held_out, split
from edgefl.device.training import make_trainer, train_update
from edgefl.onnx import zoo
from edgefl.protocol.manifest import Manifest
from edgefl.protocol.update_header import UpdateHeader
from edgefl.settings import TrainSettings

MODEL = load(zoo.mlp([4, 8, 3], seed=0))
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 60)


# Which examples


def test_the_same_examples_are_held_out_for_ever():
    assert np.flatnonzero(held_out("pi-kitchen", 40, 0.2)).tolist() == [0, 1, 2, 3, 23, 32]
    assert np.flatnonzero(held_out("pi-garden", 40, 0.2)).tolist() != [0, 1, 2, 3, 23, 32]


@given(n=st.integers(0, 300), more=st.integers(0, 300), holdout=st.floats(0, 0.9))
def test_appending_examples_moves_at_most_the_one_that_was_left(n, more, holdout):
    before, after = held_out("a", n, holdout), held_out("a", n + more, holdout)
    moved = np.flatnonzero(before != after[:n])
    assert len(moved) <= (1 if n >= MIN_EXAMPLES else n)
    assert not before[moved].any()


@given(n=st.integers(1, 200), holdout=st.floats(0, 0.9), device=st.sampled_from(["a", "pi-7", "x" * 23]))
def test_shares_are_all_there_is_and_one_is_left_to_train_on(n, holdout, device):
    x = np.arange(n)
    shares = split(device, x, -x, holdout)
    assert sorted([*shares.x, *shares.x_held]) == list(x)
    assert (shares.y.tolist(), shares.y_held.tolist()) == ((-shares.x).tolist(), (-shares.x_held).tolist())
    assert len(shares.x) >= 1
    assert n >= MIN_EXAMPLES or len(shares.x) == n


def test_of_many_examples_the_share_is_held_out():
    held = held_out("a", 100_000, 0.2)
    assert held.mean() == pytest.approx(0.2, abs=0.005)  # four standard deviations
    assert np.corrcoef(held[:-1], held[1:])[0, 1] == pytest.approx(0, abs=0.013)


def test_without_a_share_nothing_is_copied():
    shares = split("a", X, Y, 0.0)
    assert shares.x is X and shares.y is Y and len(shares.x_held) == 0


# What a device does with them


def job(holdout=0.2, mode="train", params=MODEL.params, **manifest) -> TrainJob:
    manifest = Manifest("tiny", "0" * 16, MODEL.plan, TrainSettings(), holdout=holdout, **manifest)
    return TrainJob(manifest, make_round(mode=mode), params.tobytes(), 77)


def update(job, x=X, y=Y, device="a", **options):
    blob = train_update(make_trainer(job), job, device, x, y, **options).blob
    return UpdateHeader.from_bytes(blob), blob[UpdateHeader.SIZE :]


@pytest.mark.parametrize("local_mode", ["sgd", "gradient"])
def test_what_is_held_out_is_never_trained_on(local_mode):
    held = held_out("a", len(X), 0.2)
    header, delta = update(job(local_mode=local_mode))
    assert (header.num_examples, header.num_eval) == (len(X) - held.sum(), held.sum())
    other, y = X.copy(), Y.copy()
    other[held] += 3
    y[held] = 2 - y[held]
    changed, same = update(job(local_mode=local_mode), other, y)
    assert same == delta
    assert changed.eval_loss != header.eval_loss
    assert update(job(0.0, local_mode=local_mode), X[~held], Y[~held])[1] == delta


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_the_header_has_the_received_model_on_what_is_held_out(mode):
    held = held_out("a", len(X), 0.2)
    right = make_trainer(job()).evaluate(MODEL.params, X[held], Y[held])
    header, delta = update(job(mode=mode))
    assert (header.num_eval, header.mode) == (held.sum(), mode)
    assert header.eval_loss == np.float32(right.loss)
    assert header.eval_accuracy == np.float32(right.accuracy)
    assert (header.bytes_down, delta == b"") == (77, mode == "evaluate")


def test_a_loss_without_accuracy_reports_none():
    model = load(zoo.mlp([4, 1], seed=0), loss="mse")
    manifest = Manifest("tiny", "0" * 16, model.plan, TrainSettings(), holdout=0.5)
    header, _ = update(TrainJob(manifest, make_round(), model.params.tobytes(), 0), y=Y.astype(np.float32))
    assert header.num_eval and header.eval_loss > 0 and header.eval_accuracy is None


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_too_few_examples_are_all_trained_on_and_none_is_reported(mode):
    header, _ = update(job(0.9, mode), X[:4], Y[:4])
    assert header.num_examples == (4 if mode == "train" else 0)
    assert (header.num_eval, header.eval_loss, header.eval_accuracy) == (0, None, None)


def test_a_loss_that_is_not_finite_is_not_reported(caplog):
    header, _ = update(job(mode="evaluate", params=np.full_like(MODEL.params, 3e38)))
    assert (header.num_eval, header.eval_loss) == (0, None)
    assert "not reported" in caplog.text


def test_a_job_cancelled_while_it_evaluates_is_not_trained():
    with pytest.raises(Cancelled):
        update(job(), wanted=lambda: False)
