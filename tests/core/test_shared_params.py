"""A param that several nodes read gets the sum of their gradients, on every path through a step, as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from torch_export import TORCH

from edgefl.core.plan import Node, Param, Plan
from edgefl.core.trainer import Trainer

pytestmark = TORCH
DENSE = Plan(
    [6],
    [
        Node("dense", [0], [0, 1]),
        Node("tanh", [1]),
        Node("dense", [2], [0, 1]),
        Node("tanh", [3]),
        Node("dense", [4], [0, 1]),
        Node("dense", [5], [2]),
    ],
    [Param("w", [6, 6]), Param("b", [6]), Param("head", [6, 3])],
    "mse",
    6,
    6,
)
NARROW = Plan(  # held turned (O, I), two of the three shared with a frozen bias
    [20],
    [Node("dense", [0], [0, 2], [1]), Node("dense", [0], [0, 2], [1]), Node("tanh", [2]), Node("mul", [1, 3], [], [0]),
     Node("dense", [4], [1])],
    [Param("w", [3, 20]), Param("head", [3, 2]), Param("b", [3], False)],
    "mse",
    5,
    5,
)  # fmt: skip
CONV = Plan(
    [5, 5, 4],
    [
        Node("conv", [0], [0, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]),
        Node("tanh", [1]),
        Node("conv", [2], [0, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]),
        Node("mean", [3], [], [0, 1]),
        Node("dense", [4], [2]),
    ],
    [Param("w", [3, 3, 4, 4]), Param("b", [4]), Param("head", [4, 2])],
    "mse",
    5,
    5,
)
PLANS = {"dense": DENSE, "narrow": NARROW, "conv": CONV}


def computed(name: str, w: list, x):
    """The plan in PyTorch, of params in the plan's order."""
    import torch
    from torch.nn import functional

    if name == "dense":
        h = torch.tanh(x @ w[0] + w[1])
        return (torch.tanh(h @ w[0] + w[1]) @ w[0] + w[1]) @ w[2]
    if name == "narrow":
        h = x @ w[0].T + w[2]
        return (h * torch.tanh(x @ w[0].T + w[2])) @ w[1]
    kernel, images = w[0].permute(3, 2, 0, 1), x.permute(0, 3, 1, 2)
    for turn in range(2):
        images = functional.conv2d(torch.tanh(images) if turn else images, kernel, w[1], padding=1)
    return images.mean((2, 3)) @ w[2]


class Case:
    """Params and data of a plan, and the same in float64 for PyTorch."""

    def __init__(self, name: str) -> None:
        import torch

        rng = np.random.default_rng(3)
        self.name, self.plan = name, PLANS[name]
        self.params = rng.normal(0, 0.5, self.plan.num_params).astype(np.float32)
        self.x = rng.normal(size=(12, *self.plan.input_shape)).astype(np.float32)
        self.y = rng.normal(size=(12, self.plan.params[self.plan.nodes[-1].params[0]].shape[1])).astype(np.float32)
        ends = np.cumsum([param.size for param in self.plan.params])[:-1]
        self.tensors = [
            torch.tensor(part.reshape(param.shape), dtype=torch.float64, requires_grad=param.trainable)
            for part, param in zip(np.split(self.params, ends), self.plan.params, strict=True)
        ]
        self.trained = [tensor for tensor in self.tensors if tensor.requires_grad]

    def loss(self):
        import torch

        outputs = computed(self.name, self.tensors, torch.from_numpy(self.x).double())
        return torch.nn.functional.mse_loss(outputs, torch.from_numpy(self.y).double())

    def flat(self, parts: list) -> np.ndarray:
        return np.concatenate([part.detach().numpy().ravel() for part in parts])


@pytest.mark.parametrize("batch", [32, 5], ids=["whole", "pieces"])
@pytest.mark.parametrize("name", PLANS)
def test_gradient_is_the_sum(name, batch):
    case = Case(name)
    case.loss().backward()
    expected = case.flat([tensor.grad for tensor in case.trained])
    ours = Trainer(case.plan, batch=batch).gradient(case.params, case.x, case.y)
    np.testing.assert_allclose(ours[: expected.size], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert not ours[expected.size :].any()


SGD = {"lr": 0.1}
WAYS = {
    "sgd": SGD,
    "momentum": {"lr": 0.05, "momentum": 0.9},
    "nesterov": {"lr": 0.05, "momentum": 0.9, "optimizer": "nesterov"},
    "adam": {"lr": 0.01, "optimizer": "adam"},
    "weight_decay": {"lr": 0.1, "weight_decay": 0.05},
    "proximal": {"lr": 0.1, "prox_mu": 0.3},
    "clipped": {"lr": 0.5, "clip_norm": 0.2},
}


@pytest.mark.parametrize("batch", [32, 5], ids=["whole", "pieces"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PLANS)
def test_fit_moves_as_torch_does(name, way, batch):
    import torch

    case, options, steps = Case(name), WAYS[way], 6
    ours = Trainer(case.plan, batch=batch).fit(case.params, case.x, case.y, epochs=steps, batch_size="all", **options)
    momentum = options.get("momentum", 0.0)
    if way == "adam":
        optimizer = torch.optim.Adam(case.trained, lr=options["lr"])
    else:
        decay = options.get("weight_decay", 0.0)
        optimizer = torch.optim.SGD(
            case.trained, options["lr"], momentum, weight_decay=decay, nesterov=way == "nesterov"
        )
    start = [tensor.detach().clone() for tensor in case.trained]
    for _ in range(steps):
        optimizer.zero_grad()
        case.loss().backward()
        for tensor, begun in zip(case.trained, start, strict=True):
            tensor.grad += options.get("prox_mu", 0.0) * (tensor.detach() - begun)
        if "clip_norm" in options:
            torch.nn.utils.clip_grad_norm_(case.trained, options["clip_norm"])
        optimizer.step()
    expected = case.flat([tensor.detach() - begun for tensor, begun in zip(case.trained, start, strict=True)])
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(ours.delta[: expected.size], expected, rtol=0, atol=2e-4 * np.abs(expected).max())
    assert not ours.delta[expected.size :].any()
