"""Training on rows of larger arrays, in place: the bits of training on a copy, and the same errors."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.core.rows import Rows
from edgefl.core.trainer import LocalResult, Trainer
from edgefl.device import holdout
from edgefl.errors import DataError
from edgefl.onnx import zoo

MODEL = edgefl.load(zoo.from_spec("mlp:6-5-3").SerializeToString())
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((50, 6), np.float32), RNG.integers(0, 3, 50)
PICKED = np.array([7, 3, 49, 3, 0, 12, 31])  # in no order, and one of them twice


def fit(x: object, y: object, **options: object) -> LocalResult:
    settings = {"epochs": 3, "batch_size": 2, "lr": 0.1, "seed": 5, **options}
    return Trainer(MODEL.plan, batch=4).fit(MODEL.params, x, y, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"batch_size": "all"}, {"batch_size": 5, "clip_norm": 0.1}])
def test_rows_train_as_their_copy(options: dict[str, object]) -> None:
    found, expected = fit(Rows(X, PICKED), Rows(Y, PICKED), **options), fit(X[PICKED], Y[PICKED], **options)
    assert np.array_equal(found.delta, expected.delta) and found[1:] == expected[1:]


def test_rows_of_other_types_are_copied_and_train_alike() -> None:
    wide = fit(Rows(X.astype(np.float64), PICKED), Rows(Y.astype(np.uint8), PICKED))
    assert np.array_equal(wide.delta, fit(X[PICKED], Y[PICKED]).delta)


def test_what_other_rows_hold_is_no_mistake_of_these() -> None:
    x, y = X.copy(), Y.copy()
    x[40], y[41] = np.nan, 17
    assert np.array_equal(fit(Rows(x, PICKED), Rows(y, PICKED)).delta, fit(X[PICKED], Y[PICKED]).delta)
    with pytest.raises(DataError, match="NaN"):
        fit(Rows(x, np.array([1, 40])), Rows(Y, np.array([1, 40])))
    with pytest.raises(DataError, match="label 17 of sample 1 "):
        fit(Rows(X, np.array([1, 41])), Rows(y, np.array([1, 41])))


def test_a_row_beyond_the_array_is_refused() -> None:
    for row in (-1, 50):
        rows = np.array([0, row])
        with pytest.raises(ValueError, match=r"is not one of 0\.\.49"):
            fit(Rows(X, rows), Rows(Y, rows))


def test_a_trainer_reads_other_arrays_after_the_first_ones() -> None:
    trainer, other = Trainer(MODEL.plan, batch=4), X[::-1].copy()
    for x in (X, other):
        made = trainer.fit(MODEL.params, Rows(x, PICKED), Rows(Y, PICKED), seed=1)  # type: ignore[arg-type]
        assert np.array_equal(made.delta, trainer.fit(MODEL.params, x[PICKED], Y[PICKED], seed=1).delta)


def test_held_out_rows_are_those_of_a_copy() -> None:
    found = holdout.split("dev-1", Rows(X, PICKED), Rows(Y, PICKED), 0.4)
    expected = holdout.split("dev-1", X[PICKED], Y[PICKED], 0.4)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs) and np.array_equal(np.asarray(ours), theirs)
