"""Padding that a net finds in its tokens: predictions as those of onnxruntime and torch, and one step of SGD as that of
torch. 0 is padding, and samples have different amounts of it. `make test-zoo` exports every net with both exporters."""

from __future__ import annotations

import os

import numpy as np
import pytest
from torch_export import TORCH

import edgefl

pytestmark = TORCH

NETS = (
    "add", "add_infinite", "encoder", "encoder_causal", "encoder_steps_first", "fill", "fill_either", "fill_expanded",
    "fill_lowest", "fill_pairs", "fill_unless_both", "largest", "mean_float", "multihead", "product", "product_added",
    "product_both", "where",
)  # fmt: skip
WHOLE = os.environ.get("EDGEFL_ZOO") == "whole"
# What the slower exporters write in forms that no other case has: of op, inputs and what the plan makes of them.
SLOW = [
    ("encoder_causal", "plain"), ("encoder_causal", "unfolded"), ("fill_expanded", "dynamo"), ("largest", "dynamo"),
    ("mean_float", "dynamo"), ("multihead", "dynamo"), ("product", "dynamo"), ("product_added", "plain"),
]  # fmt: skip
CASES = [(name, "folded") for name in NETS] + SLOW
if WHOLE:
    CASES += [(name, "dynamo") for name in NETS if (name, "dynamo") not in SLOW] + [("product_added", "unfolded")]


def padded(n: int, steps: int) -> np.ndarray:
    """(n, steps) tokens 1..9, and behind them 0: all of a sample but one to none."""
    rng = np.random.default_rng(8)
    tokens = rng.integers(1, 10, (n, steps))
    return np.where(np.arange(steps) < np.linspace(1, steps, n).astype(int)[:, None], tokens, 0)


@pytest.mark.parametrize(("name", "how"), CASES)
def test_padding_is_not_seen(name, how, tmp_path):
    import torch
    from torch_attention import STEPS
    from torch_padding import NETS as MAKERS
    from torch_step import assert_steps_like_torch, exported, unlike

    assert set(NETS) == set(MAKERS)
    torch.manual_seed(1)
    net = unlike(MAKERS[name]())
    model = edgefl.load(exported(net, None, how, tmp_path))
    assert model.plan.num_trainable == sum(tensor.numel() for tensor in net.parameters())
    x = padded(6, STEPS)
    assert_steps_like_torch(net, model, x=x)
    trainer = edgefl.Trainer(model.plan, batch=6)
    other = np.where(x == 0, 0, x % 9 + 1)
    assert not np.allclose(trainer.predict(model.params, x), trainer.predict(model.params, other))
