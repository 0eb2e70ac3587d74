"""Real files of other people's exporters: what they are known to answer, and that they train and save."""

from __future__ import annotations

import gzip

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import assert_computes

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator


def mnist(shared) -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images (n, 1, 28, 28) in 0..255, and their digits."""

    def read(name: str, skip: int) -> np.ndarray:
        data = gzip.decompress((shared / "data" / "mnist" / name).read_bytes())
        return np.frombuffer(data, np.uint8, offset=skip)

    images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return images.astype(np.float32), read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)


@pytest.mark.parametrize(("name", "scale", "right"), [("cntk_mnist-8", 1, 9891), ("pytorch_tiny_mnist_cnn", 255, 9473)])
def test_digits_that_a_file_knows_are_known_after_load_and_save(shared, name, scale, right):
    """The counts are those of onnxruntime on the untouched files."""
    images, digits = mnist(shared)
    model = edgefl.load(shared / "models" / f"{name}.onnx")
    found = edgefl.Trainer(model.plan, batch=64).predict(model.params, images / np.float32(scale))
    assert (found.argmax(1) == digits).sum() == right
    # Written and read again: a param that was moved and moved back makes a new file of the same numbers.
    moved = model.params.copy()
    moved[0] += 1
    again = edgefl.load(edgefl.load(model.to_bytes(moved)).to_bytes(model.params))
    assert (again.params == model.params).all()
    theirs = OnnxEvaluator(again).predict(again.params, images[:500] / np.float32(scale))
    np.testing.assert_allclose(found[:500], theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("number", range(3))
def test_golden_outputs(shared, number):
    def tensor(kind: str) -> np.ndarray:
        path = shared / "models" / f"golden_cntk_mnist-8_set{number}_{kind}_0.pb"
        return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))

    model = edgefl.load(shared / "models" / "cntk_mnist-8.onnx")
    ours = edgefl.Trainer(model.plan).predict(model.params, tensor("input"))
    expected = tensor("output")
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_recurrent_file_agrees_trains_and_saves(shared):
    model = edgefl.load(shared / "models" / "onnx2c_lstm_k1_b1_r1.onnx", loss="mse", dims={"M1": 6})
    x = np.random.default_rng(0).normal(size=(20, 6, 5)).astype(np.float32)
    y = np.tanh(x.mean(1)[:, :3])
    trainer = edgefl.Trainer(model.plan)
    before = trainer.evaluate(model.params, x, y).loss
    after = model.params + trainer.fit(model.params, x, y, epochs=20, lr=0.2).delta
    assert trainer.evaluate(after, x, y).loss < 0.9 * before
    saved = edgefl.load(model.to_bytes(after), loss="mse", dims={"M1": 6})
    np.testing.assert_allclose(
        OnnxEvaluator(saved).predict(saved.params, x), trainer.predict(after, x), rtol=1e-4, atol=1e-5
    )


def test_keras_file_computes_without_moving_anything(shared):
    model = assert_computes(edgefl.load(shared / "models" / "hls4ml_conv2d_small_keras.onnx"))
    assert [node.op for node in model.plan.nodes] == ["conv", "relu", "flatten", "dense", "softmax"]


WANTED = {
    "fastmachinelearning+qonnx__src_qonnx_data_onnx_bsd300x3-espcn_subpixel_float_model": ({}, "transpose"),
    "pulp-platform+Deeploy__DeeployTest_Tests_Models_Autoencoder1D_network": ({}, "conv_transpose"),
    "zkonduit+ezkl__examples_onnx_gru_network": ({"batch_size": 4}, "gru"),
    "zkonduit+ezkl__examples_onnx_lstm_network": ({"batch_size": 4}, "lstm"),
    "zkonduit+ezkl__examples_onnx_rnn_network": ({"batch_size": 4}, "rnn"),
    "zkonduit+ezkl__examples_onnx_ltsf_network": ({}, "expand"),
    "zkonduit+ezkl__examples_onnx_sklearn_mlp_network": ({}, "dense"),
}


@pytest.mark.parametrize("name", WANTED)
def test_files_that_others_wanted_to_train(shared, name):
    dims, op = WANTED[name]
    model = edgefl.load(shared / "models" / "wanted" / f"{name}.onnx", loss="mse", dims=dims)
    assert op in {node.op for node in model.plan.nodes}
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (8, *model.plan.input_shape)).astype(np.float32)
    before = OnnxEvaluator(model).predict(model.params, x)
    y = before + rng.normal(0, 0.1 * before.std(), before.shape).astype(np.float32)
    trainer = edgefl.Trainer(model.plan)
    first, last = (trainer.fit(model.params, x, y, epochs=epochs, batch_size=8, lr=1e-3) for epochs in (1, 20))
    assert last.loss < first.loss
    after = model.params + last.delta
    saved = edgefl.load(model.to_bytes(after), loss="mse", dims=dims)
    for params, theirs in ((model.params, before), (after, OnnxEvaluator(saved).predict(saved.params, x))):
        np.testing.assert_allclose(trainer.predict(params, x), theirs, atol=1e-5 * np.abs(theirs).max())


def test_a_file_of_before_opsets_says_so(shared):
    with pytest.raises(ModelError, match="names no opset"):
        edgefl.load(shared / "models" / "wanted" / "onnx+tutorials__tutorials_assets_super_resolution.onnx")
