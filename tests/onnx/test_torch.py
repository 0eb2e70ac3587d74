"""What torch's exporters write, old and new, with constants folded and not: imported, and held against onnxruntime.

torch is a dependency of tests alone; the new exporter (dynamo) needs onnxscript too.
"""

from __future__ import annotations

import warnings

import pytest
from onnx_files import assert_computes, ops
from torch_export import EXPORTS, TORCH, export

import edgefl

pytestmark = TORCH

NETS = {
    "mlp": (20,),
    "small_cnn": (1, 12, 12),
    "resnet": (3, 16, 16),
    "depthwise": (1, 25, 10),
    "inverted_residual": (3, 12, 12),
    "autoencoder": (40,),
    "char_lstm": None,
    "char_lstm_bidirectional": None,
    "lstm_state": (7, 5),
    "gru": (7, 5),
    "gru_time_first": (5, 7),
    "series": (9, 64),
    "attention": (10, 6),
    "product_attention": (7, 6),
    "encoder_layer": (7, 6),
    "segmentation": (3, 6, 7),
}


def make(name: str):
    import torch
    import torch_nets

    torch.manual_seed(1)
    net = getattr(torch_nets, name)().eval()
    for part in net.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net


@pytest.mark.parametrize("how", EXPORTS)
@pytest.mark.parametrize("name", NETS)
def test_export_agrees_with_onnxruntime_and_with_torch(name, how, tmp_path):
    import torch
    from onnx_files import samples

    net = make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = edgefl.load(export(net, NETS[name], how, tmp_path))
    assert_computes(model, tolerance=1e-4)
    x = samples(model, 5)
    with torch.no_grad():
        theirs = net(torch.from_numpy(x)).numpy()
    ours = edgefl.Trainer(model.plan).predict(model.params, x)
    assert abs(ours - theirs).max() <= 1e-4 * max(1, abs(theirs).max())


def test_batch_norm_is_trained_where_the_exporter_has_kept_it(tmp_path):
    model = edgefl.load(export(make("resnet"), NETS["resnet"], "unfolded", tmp_path))
    assert ops(model).count("batch_norm") == 7
    names = {param.name: param.trainable for param in model.plan.params}
    assert names["norm.weight"] and not names["norm.running_mean"]
    frozen = edgefl.load(model.source, freeze=["stem", "norm"])
    assert ops(frozen).count("batch_norm") == 6


def test_recurrent_weights_cut_in_the_graph_all_train(tmp_path):
    model = edgefl.load(export(make("gru"), NETS["gru"], "unfolded", tmp_path))
    assert model.plan.num_trainable == sum(tensor.numel() for tensor in make("gru").parameters())
