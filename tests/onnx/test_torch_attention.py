"""Transformers as the exporters of torch write them, above all their masks: predictions as those of onnxruntime and
torch, and one step of SGD as that of torch."""

from __future__ import annotations

import pytest
from onnx_files import ops
from torch_export import EXPORTS, TORCH

import edgefl

pytestmark = TORCH

MASKS = ["product", "product_bool", "product_added", "fill", "fill_lowest", "add", "add_large", "where", "made",
         "counted", "window"]  # fmt: skip
NETS = {
    "multihead": (7, 6),
    "multihead_weights": (7, 6),
    "encoder_causal": (7, 6),
    "encoder": (7, 6),
    "vit": (3, 12, 12),
}


@pytest.fixture
def stepped(tmp_path):
    """Exports a net, holds it to torch, and returns its model."""

    def run(make, shape, how) -> edgefl.Model:
        import torch
        from torch_step import assert_steps_like_torch, exported, unlike

        torch.manual_seed(1)
        net = unlike(make())
        model = edgefl.load(exported(net, shape, how, tmp_path))
        trained = sum(tensor.numel() for tensor in net.parameters())
        assert model.plan.num_trainable == trained
        assert_steps_like_torch(net, model)
        return model

    return run


CASES = [(mask, how) for mask in MASKS for how in ("folded", "dynamo")]
CASES += [(mask, how) for mask in ("product", "fill") for how in ("unfolded", "plain")]


@pytest.mark.parametrize(("mask", "how"), CASES)
def test_gpt(mask, how, stepped):
    from torch_attention import gpt

    model = stepped(lambda: gpt(mask), None, how)
    masks = [node for node in model.plan.nodes if node.op == "mask"]
    assert len(masks) == (0 if mask == "add_large" else 2)
    params = [param for param in model.plan.params if not param.trainable and list(param.shape) == [11, 11]]
    if mask not in ("window", "add_large"):
        assert all(node.ints == [0, 0] for node in masks) and not params, "a triangle needs no param"
    elif mask == "window":
        assert len(params) == 1, "two layers share one mask"


@pytest.mark.parametrize("how", [*EXPORTS, "plain"])
@pytest.mark.parametrize("name", NETS)
def test_transformers(name, how, stepped):
    import torch_attention

    model = stepped(getattr(torch_attention, name), NETS[name], how)
    assert ops(model).count("mask") == (1 if "multihead" in name or "causal" in name else 0)
