"""Files that were exported in training mode: they are trained like others, and come back in the form that predicts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_files import assert_computes, onnx_model, ops
from torch_export import TORCH

import edgefl

NORM = "(float[N,6] x) => (float[N,3] y) <float[6,8] U, float[8,3] V, float[8] s, float[8] t, float[8] m, float[8] v"
FORMS = {
    "since_14": (15, "n, rm, rv = BatchNormalization<training_mode=1, momentum=0.8>(u, s, t, m, v)"),
    "since_14_alone": (15, "n = BatchNormalization<training_mode=1, momentum=0.8>(u, s, t, m, v)"),
    "before_14": (12, "n, rm, rv, sm, sv = BatchNormalization<momentum=0.8>(u, s, t, m, v)"),
    "before_9": (7, "n, rm, rv, sm, sv = BatchNormalization<momentum=0.8>(u, s, t, m, v)"),
}


@pytest.mark.parametrize("name", FORMS)
def test_batch_norm_in_training_mode(name):
    opset, norm = FORMS[name]
    text = f"{NORM}> {{ u = MatMul(x, U) {norm} y = MatMul(n, V) }}"
    arrays = {"v": np.linspace(0.5, 2, 8).astype(np.float32)}
    trained = edgefl.load(onnx_model(text, opset=opset, **arrays).SerializeToString())
    assert_computes(trained)
    text = f"{NORM}> {{ u = MatMul(x, U) n = BatchNormalization<momentum=0.8>(u, s, t, m, v) y = MatMul(n, V) }}"
    plain = edgefl.load(onnx_model(text, opset=opset, **arrays).SerializeToString())
    assert plain.plan.hash == trained.plan.hash
    (node,) = (
        node for node in onnx.load_from_string(trained.source).graph.node if node.op_type == "BatchNormalization"
    )
    assert len(node.output) == 1 and all(attribute.name != "training_mode" for attribute in node.attribute)


@pytest.mark.parametrize("made", ["bool t = {1}> { ", "> { t = Constant<value = bool {1}>() "])
def test_dropout_in_training_mode(made):
    text = "(float[N,6] x) => (float[N,3] y) <float[6,8] U, float[8,3] V, float r = {0.3}, " + made
    text = text.replace(", >", ">") + "u = MatMul(x, U) d, mask = Dropout(u, r, t) y = MatMul(d, V) }"
    assert ops(assert_computes(edgefl.load(onnx_model(text).SerializeToString()))) == ["dense", "dropout", "dense"]


@pytest.mark.torch
@TORCH[1]
@TORCH[2]
def test_torch_in_training_mode():
    import io

    import torch
    from torch import nn

    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(8 * 16, 4)
    )
    for opset in (12, 17):
        file = io.BytesIO()
        torch.onnx.export(
            net, (torch.randn(2, 3, 6, 6),), file, dynamo=False, opset_version=opset, do_constant_folding=False,
            training=torch.onnx.TrainingMode.TRAINING, input_names=["x"], dynamic_axes={"x": {0: "N"}},
        )  # fmt: skip
        model = assert_computes(edgefl.load(file.getvalue()), tolerance=1e-4)
        assert {"batch_norm", "dropout"} <= set(ops(model))
        assert model.plan.num_trainable == sum(tensor.numel() for tensor in net.parameters())
