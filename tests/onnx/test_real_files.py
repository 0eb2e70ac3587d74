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


# The dims that it needs, and an op that the plan has.
WANTED = {
    "FedML-AI+FedML__android_fedmlsdk_MobileNN_test_mnn_model_tabular": ({}, "conv"),
    "NeuralNetworkVerification+Marabou__resources_onnx_conv_mp1": ({}, "maxpool"),
    "NeuralNetworkVerification+Marabou__resources_onnx_fc2": ({"batch_size": 1}, "dense"),
    "NeuralNetworkVerification+Marabou__resources_onnx_multiInput_add": ({}, "slice"),
    "eth-sri+eran__data_acasxu_nets_ACASXU_run2a_1_1_batch_2000": ({}, "dense"),
    "fastmachinelearning+example-models__onnx_conv2d_small_mp_keras": ({}, "conv"),
    "fastmachinelearning+qonnx__src_qonnx_data_onnx_bsd300x3-espcn_nn_resize_float_model": ({}, "resize"),
    "fastmachinelearning+qonnx__src_qonnx_data_onnx_bsd300x3-espcn_subpixel_float_model": ({}, "transpose"),
    "pulp-platform+Deeploy__DeeployTest_Tests_Models_Autoencoder1D_network": ({}, "conv_transpose"),
    "pulp-platform+Deeploy__DeeployTest_Tests_Models_CCT_FP32_CCT_1_16_16_32_network": ({}, "layer_norm"),
    "pulp-platform+Deeploy__DeeployTest_Tests_Models_TinyViT_Demo_network": ({}, "depthwise"),
    "zkonduit+ezkl__examples_onnx_gru_network": ({"batch_size": 4}, "gru"),
    "zkonduit+ezkl__examples_onnx_lstm_network": ({"batch_size": 4}, "lstm"),
    "zkonduit+ezkl__examples_onnx_ltsf_network": ({}, "expand"),
    "zkonduit+ezkl__examples_onnx_prelu_gmm_network": ({}, "dense"),
    "zkonduit+ezkl__examples_onnx_rnn_network": ({"batch_size": 4}, "rnn"),
    "zkonduit+ezkl__examples_onnx_self_attention_network": ({}, "mask"),
    "zkonduit+ezkl__examples_onnx_sklearn_mlp_network": ({}, "dense"),
}
PROBABILITIES = {"fastmachinelearning+example-models__onnx_conv2d_small_mp_keras"}
REFUSED = {
    "NeuralNetworkVerification+Marabou__resources_onnx_fc2": r"one sample at a time: .*--dim batch_size=1\)",
    "NeuralNetworkVerification+Marabou__resources_onnx_fc_matMul": "each of the 25 samples of a run: export the model",
    "onnx+tutorials__tutorials_assets_super_resolution": "names no opset, .*: export the model again",
    "zkonduit+ezkl__examples_onnx_gru_network": r"counts the steps of a sample, .*\(--dim batch_size=32\)",
    "zkonduit+ezkl__examples_onnx_lstm_network": r"counts the steps of a sample, .*\(--dim batch_size=32\)",
    "zkonduit+ezkl__examples_onnx_rnn_network": r"counts the steps of a sample, .*\(--dim batch_size=32\)",
}


def wanted_file(shared, name: str) -> bytes:
    """The file; one that compares numbers by an op that came in opset 11, and says 10, which onnxruntime refuses."""
    source = (shared / "models" / "wanted" / f"{name}.onnx").read_bytes()
    if "self_attention" not in name:
        return source
    proto = onnx.ModelProto.FromString(source)
    proto.opset_import[0].version = 11
    return proto.SerializeToString()


def targets(model: edgefl.Model, before: np.ndarray) -> np.ndarray:
    """Classes for a file that ends in probabilities, else what it answers with noise."""
    rng = np.random.default_rng(1)
    if model.plan.loss == "cross_entropy":
        return rng.integers(0, before.shape[-1], before.shape[:-1])
    return before + rng.normal(0, 0.1 * before.std(), before.shape).astype(np.float32)


@pytest.mark.parametrize("name", WANTED)
def test_files_that_others_wanted_to_train(shared, name):
    dims, op = WANTED[name]
    source = wanted_file(shared, name)
    loss = "cross_entropy" if name in PROBABILITIES else "mse"
    model = edgefl.load(source, loss=loss, dims=dims)
    assert op in {node.op for node in model.plan.nodes}
    x = np.random.default_rng(0).uniform(0, 1, (8, *model.plan.input_shape)).astype(np.float32)
    trainer = edgefl.Trainer(model.plan)
    before = OnnxEvaluator(model).predict(model.params, x)
    y = targets(model, before)
    first, last = (trainer.fit(model.params, x, y, epochs=epochs, batch_size=8, lr=1e-3) for epochs in (1, 3))
    assert last.loss < first.loss
    after = model.params + last.delta
    saved = edgefl.load(model.to_bytes(after), loss=loss, dims=dims)
    for params, theirs in ((model.params, before), (after, OnnxEvaluator(saved).predict(saved.params, x))):
        np.testing.assert_allclose(trainer.predict(params, x), theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_to_do(shared, name):
    with pytest.raises(ModelError, match=REFUSED[name]):
        edgefl.load(shared / "models" / "wanted" / f"{name}.onnx")


def test_every_wanted_file_is_trained_or_refused_with_advice(shared):
    assert {path.stem for path in (shared / "models" / "wanted").glob("*.onnx")} == {*WANTED, *REFUSED}
