"""Fifty nets of torch, in the modes of its exporters: each computes what torch does, and one step of SGD moves it
where torch's own moves.

Where an exporter folds batch normalization away, the twin is the net with it folded likewise. The newer exporter takes
seconds a net: `make test-zoo` has it export all of them, other runs those in SAMPLED.
"""

from __future__ import annotations

import copy
import os
import warnings

import numpy as np
import pytest
from torch_export import EXPORTS, MISSING, TORCH, export

import edgefl

pytestmark = TORCH
if not MISSING:
    import zoo_others
    import zoo_sequences
    import zoo_vision

    ZOO = {**zoo_vision.NETS, **zoo_sequences.NETS, **zoo_others.NETS}
else:
    ZOO = {}

SAMPLES = 8
WHOLE = os.environ.get("EDGEFL_ZOO") == "whole"
SAMPLED = ("mobilenet_v2", "u_net", "vit_tiny", "gpt_tied", "transformer_encoder", "elman", "char_lstm", "two_inputs")
CASES = [(name, how) for name in ZOO for how in EXPORTS if how != "dynamo" or WHOLE or name in SAMPLED]


def seasoned(name: str):
    """The net as training leaves one: no bias is zero, no scale one, no two layers alike."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    torch.manual_seed(3)
    torch.set_num_threads(1)
    net = ZOO[name].make()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(torch.randn_like(tensor), alpha=0.05)
    for part in net.modules():
        if isinstance(part, _BatchNorm):
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    return net.eval()


def twin(net, how: str):
    """What the exported file is to train like."""
    from torch.fx.experimental.optimization import fuse
    from torch.nn.modules.batchnorm import _BatchNorm

    net = copy.deepcopy(net)
    if how != "unfolded" and any(isinstance(part, _BatchNorm) for part in net.modules()):
        net = fuse(net)
        for tensor in net.parameters():
            tensor.requires_grad_(True)  # fuse leaves a bias that it has made as it is
    return net.train()


def loss_of(spec, output, y):
    import torch

    if not spec.classes:
        return torch.nn.functional.mse_loss(output, y)
    axis = 1 if output.ndim == 4 else -1
    return torch.nn.functional.cross_entropy(output.movedim(axis, -1).reshape(-1, spec.classes), y.reshape(-1))


@pytest.mark.parametrize(("name", "how"), CASES)
def test_a_step_of_a_net_is_torchs(name: str, how: str, tmp_path) -> None:
    import torch

    spec, net = ZOO[name], seasoned(name)
    x = spec.data(SAMPLES, seed=5)
    inputs = [torch.from_numpy(part) for part in x]
    with torch.no_grad():
        before = net(*inputs)
    y = spec.targets(before, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = export(net, inputs, how, tmp_path)
    loss = "cross_entropy" if spec.classes else "mse"
    model = edgefl.load(file, loss=loss, freeze=spec.freeze, train=spec.train)
    trainer = edgefl.Trainer(model.plan, batch=SAMPLES)
    given = x[0] if len(x) == 1 else x
    scale = max(1.0, float(before.abs().max()))
    np.testing.assert_allclose(trainer.predict(model.params, given), before.numpy(), rtol=0, atol=1e-4 * scale)

    other = twin(net, how)
    optimizer = torch.optim.SGD(other.parameters(), lr=spec.lr)
    loss_of(spec, other(*inputs), torch.from_numpy(y)).backward()
    optimizer.step()
    with torch.no_grad():
        theirs = other.eval()(*inputs).numpy()
    fitted = trainer.fit(model.params, given, y, batch_size="all", lr=spec.lr)
    ours = trainer.predict(model.params + fitted.delta, given)
    moved = float(np.abs(theirs - before.numpy()).max())
    assert moved > 5e-3 * scale, "torch's own step hardly moved the net"
    gap = float(np.abs(ours - theirs).max())
    assert gap <= 1e-4 * scale and gap <= 1e-2 * moved, (gap, moved, scale)
    if how == "unfolded":
        assert model.plan.num_trainable == sum(tensor.numel() for tensor in net.parameters())
