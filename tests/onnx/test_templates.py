"""Templates of `edgefl new`: each trains, and onnxruntime computes what the core does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_files import assert_computes

import edgefl
from edgefl.core.trainer import Trainer
from edgefl.errors import UsageError
from edgefl.onnx.templates import TEMPLATES, Examples, fitting, template

CASES = [
    ("linear", Examples((6,), 3)),
    ("linear", Examples((4, 3), 1)),
    ("mlp", Examples((6,), 3)),
    ("mlp", Examples((5, 2), 1)),
    ("cnn", Examples((64,), 10)),
    ("cnn", Examples((9, 8), 3)),
    ("cnn", Examples((3, 8, 8), 3)),
    ("cnn", Examples((8, 8, 3), 3)),
    ("cnn", Examples((3, 3), 2)),
    ("cnn1d", Examples((32, 6), 4)),
    ("cnn1d", Examples((6, 32), 4)),
    ("cnn1d", Examples((40,), 1)),
    ("gru", Examples((12, 3), 4)),
    ("gru", Examples((12,), 1)),
    ("gru", Examples((10,), 30, tokens=30)),
    ("gru", Examples((10,), 30, tokens=30, steps=True)),
    ("autoencoder", Examples((8,), 8)),
    ("autoencoder", Examples((16, 2), 32)),
]


def data(name: str, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """48 examples of two kinds that are easy to tell apart."""
    rng = np.random.default_rng(0)
    kind = np.arange(48) % 2
    if examples.tokens:
        x = (np.cumsum(np.ones((48, *examples.shape), int), 1) + kind[:, None]) % examples.tokens
        return x, (x + 1) % examples.tokens if examples.steps else (x[:, -1] + 1) % examples.tokens
    x = rng.normal(0, 0.3, (48, *examples.shape)) + np.where(kind, 1, -1).reshape(-1, *[1] * len(examples.shape))
    x = x.astype(np.float32)
    if name == "autoencoder":
        return x, x
    return x, kind if examples.outputs > 1 else kind.astype(np.float32)


@pytest.mark.parametrize("name, examples", CASES)
def test_a_template_trains_and_onnxruntime_agrees(name, examples):
    proto = template(name, examples, seed=3)
    onnx.checker.check_model(proto, full_check=True)
    x, y = data(name, examples)
    model = edgefl.load(proto, y=y)
    x = x.reshape(len(x), *model.plan.input_shape)
    trainer = Trainer(model.plan)
    before = trainer.evaluate(model.params, x, y).loss
    done = trainer.fit(model.params, x, y, epochs=20, batch_size=8, lr=0.01, optimizer="adam")
    after = trainer.evaluate(model.params + done.delta, x, y).loss
    assert after < 0.7 * before, (before, after)
    assert model.plan.num_trainable == model.plan.num_params
    assert_computes(model)
    assert template(name, examples, seed=3) == proto and template(name, examples, seed=4) != proto


@pytest.mark.parametrize(
    "name, examples, what",
    [
        ("cnn", Examples((7,), 2), "takes images"),
        ("cnn1d", Examples((3, 8, 8), 2), "takes series"),
        ("gru", Examples((3, 8, 8), 2), "takes series"),
        ("mlp", Examples((9,), 5, tokens=5), "are tokens: choose gru"),
        ("cnn", Examples((8, 8), 5, steps=True), "one a step: choose gru"),
        ("resnet", Examples((7,), 2), "there is no template 'resnet'"),
    ],
)
def test_a_template_that_does_not_fit_says_which_does(name, examples, what):
    with pytest.raises(UsageError, match=what):
        template(name, examples)


def test_the_template_follows_from_the_data():
    assert fitting(Examples((8,), 8), True) == "autoencoder"
    shapes = {(6,): "mlp", (128, 6): "cnn1d", (6, 128): "cnn1d", (28, 28): "cnn", (3, 32, 32): "cnn"}
    assert {shape: fitting(Examples(shape, 2), False) for shape in shapes} == shapes
    assert fitting(Examples((9,), 5, tokens=5), False) == "gru" and set(shapes.values()) < set(TEMPLATES)
