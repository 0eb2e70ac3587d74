"""Padding that a net finds in its tokens: predictions as those of onnxruntime and torch, and one step of SGD as that of
torch. 0 is padding, and samples have different amounts of it."""

from __future__ import annotations

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
CASES = [(name, how) for name in NETS for how in ("folded", "dynamo")]
CASES += [(name, how) for name in ("encoder_causal", "product_added") for how in ("unfolded", "plain")]


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
