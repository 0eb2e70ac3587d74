"""The right loss: inferred from the file and from targets, said in words, and a mismatch named with its remedy."""

from __future__ import annotations

import numpy as np
import pytest

import edgefl
from edgefl.core import targets
from edgefl.core.trainer import Trainer
from edgefl.errors import DataError, UsageError
from edgefl.onnx import zoo

LABELS, ONE = np.array([0, 1, 2, 3]), np.ones(4, np.float32)
VALUES = np.full((4, 4), 7.125, np.float32)


@pytest.mark.parametrize(
    "sizes, softmax, y, loss, why",
    [
        ([4, 8, 4], False, None, "mse", "the output has the input's shape, as an autoencoder's"),
        ([4, 8, 4], False, LABELS, "cross_entropy", "the targets are labels, for 4 outputs"),
        ([4, 8, 4], False, VALUES, "mse", "the targets are numbers, for 4 outputs"),
        ([3, 8, 4], False, None, "cross_entropy", "4 outputs, which stand for classes unless `loss` says otherwise"),
        ([3, 8, 4], False, VALUES, "mse", "the targets are numbers, for 4 outputs"),
        ([3, 8, 4], True, VALUES, "cross_entropy", "the model ends in Softmax"),
        ([3, 8, 1], False, None, "mse", "the model has one output"),
        ([3, 8, 1], False, ONE, "mse", "the targets are numbers, for 1 output"),
        ([3, 8, 4], False, ONE, "cross_entropy", "4 outputs, which stand for classes unless `loss` says otherwise"),
    ],
)
def test_targets_decide_where_the_file_leaves_it_open(sizes, softmax, y, loss, why):
    model = edgefl.load(zoo.mlp(sizes, softmax=softmax), y=y)
    assert (model.plan.loss, model.loss_why) == (loss, why)
    assert model.loss_line == f"{loss} (inferred: {why})"


def test_a_loss_that_is_named_stays_whatever_the_targets_are():
    model = edgefl.load(zoo.mlp([4, 8, 4]), "mse", y=LABELS)
    assert model.loss_line == "mse (as `loss` says)"
    with pytest.raises(UsageError, match=r"integer labels .* takes numbers .*set loss = \"cross_entropy\""):
        model.check_targets(LABELS)
    model.check_targets(VALUES)


def test_a_sequence_of_labels_is_labels():
    assert targets.kind_of((7, 30), np.zeros((5, 7), np.int64)) == "labels"
    assert targets.kind_of((7, 30), np.zeros((5, 7, 30))) == "values"
    assert targets.kind_of((7, 30), np.zeros((5, 8), np.int64)) == ""


@pytest.mark.parametrize(
    "loss, y, code, remedy",
    [("mse", LABELS, "labels", '"cross_entropy"'), ("cross_entropy", VALUES, "values", '"mse"')],
)
def test_a_device_names_what_its_targets_are_without_a_value_of_them(loss, y, code, remedy):
    model = edgefl.load(zoo.mlp([4, 8, 4]), loss)
    with pytest.raises(DataError) as caught:
        Trainer(model.plan).fit(model.params, VALUES, y)
    assert caught.value.code == code and caught.value.safe and "7.125" not in caught.value.safe
    assert remedy in targets.remedy(code, loss)


def test_simulate_takes_the_loss_from_the_data_and_refuses_one_that_does_not_fit():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (120, 4)).astype(np.float32)
    data = edgefl.data.Dataset(x, x.argmax(1), x[:40], x[:40].argmax(1))
    history = edgefl.simulate(zoo.mlp([4, 16, 4], seed=1), data, devices=3, rounds=20)
    assert history.rounds[-1].accuracy > 0.8
    with pytest.raises(UsageError, match="cross_entropy"):
        edgefl.simulate(edgefl.load(zoo.mlp([4, 16, 4], seed=1)), data, devices=3, rounds=1)
