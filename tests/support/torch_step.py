"""A net of torch against the file that an exporter made of it: the same predictions, and the same after one step."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from onnx_files import samples
from torch import nn
from torch_export import export

import edgefl
from edgefl.onnx.evaluate import OnnxEvaluator

LR = 0.2
LOSSES = {"mse": nn.MSELoss(), "cross_entropy": nn.CrossEntropyLoss()}


def unlike(net: nn.Module) -> nn.Module:
    """The net with numbers as training leaves them: none of its weights are equal."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
        for part in net.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
    return net.eval()


def exported(net: nn.Module, shape: tuple[int, ...] | None, how: str, folder: Path) -> bytes:
    """As `export`, without the exporter's talk; "plain" is dynamo without optimize."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        return export(net, shape, "dynamo" if how == "plain" else how, folder, optimize=how != "plain")


def assert_steps_like_torch(
    net: nn.Module, model: edgefl.Model, *, tolerance: float = 1e-4, n: int = 6, x: np.ndarray | None = None
) -> None:
    """Predictions of file, core and torch agree, before and after one step of SGD; and the step has moved them. `x`: n
    samples, random ones if it is left out."""
    x, rng = samples(model, n) if x is None else x, np.random.default_rng(4)
    inputs, before = torch.from_numpy(x), OnnxEvaluator(model).predict(model.params, x)
    trainer = edgefl.Trainer(model.plan, batch=n)
    scale = max(1.0, float(np.abs(before).max()))
    assert np.abs(trainer.predict(model.params, x) - before).max() <= tolerance * scale
    with torch.no_grad():
        assert np.abs(net(inputs).numpy() - before).max() <= tolerance * scale
    labels = model.plan.loss == "cross_entropy"
    y = rng.integers(0, before.shape[-1], before.shape[:-1]) if labels else rng.normal(size=before.shape)
    targets = torch.from_numpy(y if labels else np.float32(y))
    made = net(inputs)
    loss = LOSSES[model.plan.loss](made.flatten(0, -2) if labels else made, targets.flatten() if labels else targets)
    net.zero_grad()
    loss.backward()
    with torch.no_grad():
        for tensor in net.parameters():
            if tensor.grad is not None:
                tensor -= LR * tensor.grad
        theirs = net.eval()(inputs).numpy()
    fitted = trainer.fit(model.params, x, y if labels else np.float32(y), batch_size="all", lr=LR)
    after = OnnxEvaluator(edgefl.load(model.to_bytes(model.params + fitted.delta), loss=model.plan.loss))
    ours = after.predict(model.params + fitted.delta, x)
    assert np.abs(theirs - before).max() > 100 * tolerance, "the step does nothing"
    assert np.abs(ours - theirs).max() <= tolerance * scale
