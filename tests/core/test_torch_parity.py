"""Whole models against torch: the params after 20 steps of SGD from the same start on the same batches.

torch is a dependency of tests alone: without it these are skipped, or fail where EDGEFL_REQUIRE_TORCH=1.
"""

from __future__ import annotations

import importlib.util
import io
import os

import numpy as np
import onnx
import pytest
from models import MODELS, VOCABULARY, Graph
from onnx import numpy_helper

import edgefl
from edgefl import Trainer

MISSING = importlib.util.find_spec("torch") is None
if MISSING and os.environ.get("EDGEFL_REQUIRE_TORCH") == "1":
    raise RuntimeError("torch is required: pip install torch==2.13.0")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(MISSING, reason="torch is not installed: pip install torch==2.13.0"),
]

STEPS, LR = 20, 0.01
SEEDS = range(5)


def edgefl_after(model: bytes, x: np.ndarray, y: np.ndarray, batch: int, loss: str | None) -> bytes:
    """The ONNX file after STEPS steps on consecutive batches of (x, y)."""
    loaded = edgefl.load(model, loss=loss)
    trainer = Trainer(loaded.plan, batch=batch)
    params = loaded.params.copy()
    for step in range(STEPS):  # each batch is a whole fit, so that no shuffling gets between us and torch
        at = step * batch
        fitted = trainer.fit(params, x[at : at + batch], y[at : at + batch], batch_size="all", lr=LR)
        params = params + fitted.delta
    return loaded.to_bytes(params)


def torch_after(net, x: np.ndarray, y: np.ndarray, batch: int, loss: str | None):
    import torch

    torch.set_num_threads(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    criterion = torch.nn.MSELoss() if loss == "mse" else torch.nn.CrossEntropyLoss()
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    for step in range(STEPS):
        at = step * batch
        optimizer.zero_grad()
        criterion(net(inputs[at : at + batch]), targets[at : at + batch]).backward()
        optimizer.step()
    return {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}


def apart(ours: dict, theirs: dict) -> tuple[float, float]:
    """The worst tensor by its largest number, and all params together by their norm."""
    names = [name for name in theirs if not name.endswith("num_batches_tracked")]
    worst = max(np.abs(ours[n] - theirs[n]).max() / max(np.abs(theirs[n]).max(), 1e-2) for n in names)
    gap = sum(float(((ours[n] - theirs[n]) ** 2).sum()) for n in names)
    return float(worst), float(np.sqrt(gap / sum(float((theirs[n] ** 2).sum()) for n in names)))


def agree(runs: list[tuple[float, float]]) -> None:
    """Rounding decides on which side of a kink a ReLU's input lies that is zero but for rounding, and from then on two
    float32 runs part, torch's from its own in float64 as much as ours from torch's. Where no such input comes, they
    stay together to the last digits. So: 1e-3 of the params always in the middle, and 1e-4 of each tensor at best.
    """
    assert sorted(gap for _, gap in runs)[len(runs) // 2] <= 1e-3, runs
    assert min(worst for worst, _ in runs) <= 1e-4, runs


def tensors(model: bytes) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.ModelProto.FromString(model).graph.initializer}


@pytest.mark.parametrize("name", MODELS)
def test_a_benchmark_model_trains_as_in_torch(name: str) -> None:
    from torch_models import torch_names, twin

    spec = MODELS[name]
    model, batch = spec.make(), min(spec.batch, 8)
    loss = "mse" if spec.classes is None else "cross_entropy"
    shape = tuple(d.dim_value for d in onnx.ModelProto.FromString(model).graph.input[0].type.tensor_type.shape.dim[1:])
    runs = []
    for seed in SEEDS:
        x, y = spec.data(STEPS * batch, shape, seed=seed)
        after = torch_names(tensors(edgefl_after(model, x, y, batch, loss)))
        runs.append(apart(after, torch_after(twin(name, model, VOCABULARY), x, y, batch, loss)))
        start = torch_names(tensors(model))
        assert max(np.abs(after[name] - start[name]).max() for name in start) > 1e-3, "nothing was trained"
    agree(runs)


def inverted_residual() -> bytes:
    """MobileNetV2's block (Sandler et al. 2018): expand, depthwise, project, each normalized; ReLU6; a shortcut."""
    g = Graph()
    low = np.array(0, np.float32), np.array(6, np.float32)
    bounds = g.constant("zero", low[0]), g.constant("six", low[1])

    def relu6(x: str) -> str:
        return g.node("Clip", x, *bounds, name=f"{x}.relu6")

    x = g.norm(g.conv("input", "stem", 3, 8, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), bias=False), "stem_norm", 8)
    x = relu6(x)
    y = relu6(g.norm(g.conv(x, "expand", 8, 48, (1, 1), bias=False), "expand_norm", 48))
    y = g.conv(y, "depth", 48, 48, (3, 3), pads=(1, 1, 1, 1), groups=48, bias=False)
    y = relu6(g.norm(y, "depth_norm", 48))
    y = g.norm(g.conv(y, "project", 48, 8, (1, 1), bias=False), "project_norm", 8)
    x = g.flatten(g.node("GlobalAveragePool", g.node("Add", x, y, name="shortcut"), name="pool"))
    return g.model(g.dense(x, "fc", 8, 5), (3, 16, 16), 5)


def test_an_inverted_residual_trains_as_in_torch() -> None:
    import torch
    from torch import nn

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.stem_norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
            self.expand, self.expand_norm = nn.Conv2d(8, 48, 1, bias=False), nn.BatchNorm2d(48)
            self.depth, self.depth_norm = nn.Conv2d(48, 48, 3, 1, 1, groups=48, bias=False), nn.BatchNorm2d(48)
            self.project, self.project_norm = nn.Conv2d(48, 8, 1, bias=False), nn.BatchNorm2d(8)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            relu6 = nn.functional.relu6
            x = relu6(self.stem_norm(self.stem(x)))
            y = relu6(self.depth_norm(self.depth(relu6(self.expand_norm(self.expand(x))))))
            return self.fc((x + self.project_norm(self.project(y))).mean((2, 3)))

    model, runs = inverted_residual(), []
    for seed in SEEDS:
        net = Twin().train()
        net.load_state_dict({k: torch.tensor(v) for k, v in tensors(model).items() if "." in k}, strict=False)
        rng = np.random.default_rng(seed)
        x = rng.normal(0, 1, (STEPS * 8, 3, 16, 16)).astype(np.float32)
        y = rng.integers(0, 5, STEPS * 8)
        runs.append(apart(tensors(edgefl_after(model, x, y, 8, None)), torch_after(net, x, y, 8, None)))
    agree(runs)


def exported(net, x: np.ndarray) -> bytes:
    """What torch's own exporter writes, its initializers under the modules' names."""
    import torch

    buffer = io.BytesIO()
    torch.onnx.export(
        net.eval(), (torch.from_numpy(x[:2]),), buffer, opset_version=17, dynamo=False, do_constant_folding=False,
        input_names=["input"], dynamic_axes={"input": {0: "batch"}},
    )  # fmt: skip
    net.train()
    return buffer.getvalue()


def predictions(net, model: bytes, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import torch

    loaded = edgefl.load(model)
    with torch.no_grad():
        return Trainer(loaded.plan).predict(loaded.params, x), net.eval()(torch.from_numpy(x)).numpy()


def same_after_training(net, x: np.ndarray, y: np.ndarray, batch: int = 8) -> None:
    """By what they predict: exporters cut and turn recurrent and attention weights, so names don't match."""
    model = exported(net, x)
    untrained, _ = predictions(net, model, x[:16])
    after = edgefl_after(model, x, y, batch, "cross_entropy")
    torch_after(net, x, y, batch, None)
    ours, theirs = predictions(net, after, x[:16])
    assert np.abs(theirs - untrained).max() > 5e-3
    assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs - untrained).max()


def test_a_gru_trains_as_in_torch() -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.fc = nn.GRU(6, 20, batch_first=True), nn.Linear(20, 4)

        def forward(self, x):
            return self.fc(self.gru(x)[0][:, -1])

    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (STEPS * 8, 12, 6)).astype(np.float32)
    same_after_training(Net(), x, rng.integers(0, 4, STEPS * 8))


def test_a_transformer_encoder_block_trains_as_in_torch() -> None:
    import torch
    from torch import nn

    class Attention(nn.Module):
        """Two heads, written out: nn.MultiheadAttention takes a path of its own in eval mode."""

        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads, self.width = heads, width
            self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, width)

        def forward(self, x):
            def split(y):
                return y.reshape(-1, 10, self.heads, self.width // self.heads).transpose(1, 2)

            q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
            weights = torch.softmax(q @ k.transpose(2, 3) / (self.width // self.heads) ** 0.5, -1)
            return self.out((weights @ v).transpose(1, 2).reshape(-1, 10, self.width))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.norm1, self.norm2 = Attention(16, 2), nn.LayerNorm(16), nn.LayerNorm(16)
            self.wide, self.narrow, self.fc = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.norm1(x + self.attention(x))
            x = self.norm2(x + self.narrow(nn.functional.gelu(self.wide(x))))
            return self.fc(x.mean(1))

    torch.manual_seed(0)
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (STEPS * 8, 10, 16)).astype(np.float32)
    same_after_training(Block(), x, rng.integers(0, 3, STEPS * 8))
