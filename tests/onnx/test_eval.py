"""The file's loss as onnxruntime gives it: every loss, for classes of rows, steps and pixels, as the trainer has it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import onnx_model, samples

import edgefl
from edgefl.errors import DataError
from edgefl.onnx.evaluate import OnnxEvaluator

ROWS = "(float[N,6] x) => (float[N,4] y) <float[6,4] W> { h = MatMul(x, W) "
STEPS = "(int64[N,7] x) => (float[N,7,4] y) <float[10,4] W> { h = Gather(W, x) "
PIXELS = "(float[N,2,3,5] x) => (float[N,4,3,5] y) <float[4,2,1,1] W> { h = Conv(x, W) "
OF_CLASSES, OF_NUMBERS = ("cross_entropy", "hinge", "focal"), ("bce", "mse", "l1", "huber")


def assert_same(text: str, loss: str) -> None:
    model = edgefl.load(onnx_model(text), loss=loss)
    x, rng = samples(model, 20), np.random.default_rng(1)
    shape = edgefl.Trainer(model.plan).predict(model.params, x).shape
    if loss in OF_CLASSES:
        y: np.ndarray = rng.integers(0, 4, np.delete(shape, model.class_axis))
    else:
        y = rng.uniform(0, 1, shape).astype(np.float32)
    ours = edgefl.Trainer(model.plan).evaluate(model.params, x, y)
    theirs = OnnxEvaluator(model).evaluate(model.params, x, y)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-5, abs=1e-6)
    assert theirs.accuracy == (None if ours.accuracy is None else pytest.approx(ours.accuracy))


@pytest.mark.parametrize("text", [ROWS, STEPS, PIXELS], ids=["rows", "steps", "pixels"])
@pytest.mark.parametrize("loss", OF_CLASSES + OF_NUMBERS)
def test_logits(text, loss):
    assert_same(text + "y = Identity(h) }", loss)


@pytest.mark.parametrize(("text", "axis"), [(ROWS, 1), (STEPS, 2), (PIXELS, 1)], ids=["rows", "steps", "pixels"])
@pytest.mark.parametrize("tail", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("loss", OF_CLASSES)
def test_a_softmax_that_the_loss_has_taken_over(text, axis, tail, loss):
    assert_same(f"{text} y = {tail}<axis={axis}>(h) }}", loss)


@pytest.mark.parametrize("text", [ROWS, PIXELS], ids=["rows", "pixels"])
@pytest.mark.parametrize("loss", OF_NUMBERS)
def test_probabilities(text, loss):
    assert_same(text + "y = Sigmoid(h) }", loss)


def test_labels_of_another_shape_are_refused():
    model = edgefl.load(onnx_model(STEPS + "y = Identity(h) }"))
    with pytest.raises(DataError, match=r"labels have shape \(3,\), the model's output \(3, 7, 4\)"):
        OnnxEvaluator(model).evaluate(model.params, samples(model, 3), np.zeros(3, int))
