"""What is not trained is told with the reason, and `train` and `freeze` choose."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import assert_computes, moved, onnx_model
from torch_export import EXPORTS, TORCH, export

import edgefl
from edgefl.core.skeleton import Skeleton
from edgefl.errors import UsageError
from edgefl.onnx import skeleton
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.summary import describe, summarize

TEXT = (
    "(float[N,4] x) => (float[N,3] y) <float[4] mean, float[4] std, float[4,3] W, float[3] b, float[1] temperature>"
    "{ c = Sub(x, mean) n = Div(c, std) h = Gemm(n, W, b) [end] y = Div(h, temperature) }"
)
STD = np.array([0.5, 2.0, 1.5, 3.0], np.float32)


def untrained(model: edgefl.Model) -> dict[str, str]:
    return {item.name: item.reason for item in model.untrained}


def loaded(**options) -> edgefl.Model:
    return edgefl.load(onnx_model(TEXT, std=STD, temperature=np.array([1.7], np.float32)), **options)


def test_everything_that_stays_is_told():
    model = assert_computes(loaded())
    assert untrained(model) == {
        "mean": "scales the input, before the first weight",
        "std": "scales the input, before the first weight",
        "temperature": "a single number",
    }
    assert [item.shape for item in model.untrained] == [(4,), (4,), (1,)]
    assert all(item.can_train for item in model.untrained)
    frozen = loaded(freeze=["b"])
    assert untrained(frozen)["b"] == "frozen"


@pytest.mark.parametrize("names", [["temperature"], ["mean"], ["std"], ["mean", "std"], ["*"]], ids=str)
def test_named_tensors_train(names):
    model = assert_computes(loaded(train=names))
    chosen = {"mean", "std", "temperature"} if names == ["*"] else set(names)
    assert set(untrained(model)) == {"mean", "std", "temperature"} - chosen
    assert {param.name for param in model.plan.params if param.trainable} == chosen | {"W", "b"}
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3
    fitted = edgefl.Trainer(model.plan).fit(model.params, x, y, epochs=3, batch_size=5, lr=0.1)
    saved = edgefl.load(model.to_bytes(model.params + fitted.delta), train=names)
    assert saved.plan == model.plan
    np.testing.assert_allclose(saved.params, model.params + fitted.delta, rtol=1e-6)
    ends = np.cumsum([param.size for param in model.plan.params])[:-1]
    for param, part in zip(model.plan.params, np.split(fitted.delta, ends), strict=True):
        assert part.any() == param.trainable


def test_gradient_of_a_single_number():
    """y = (n W + b) / t: the slope of the loss in t, by its definition."""
    model = loaded(train=["temperature"])
    at = [param.name for param in model.plan.params].index("temperature")
    place = sum(param.size for param in model.plan.params[:at])
    trainer = edgefl.Trainer(model.plan)
    x, y = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), np.arange(20) % 3
    step, losses = 1e-2, []
    for sign in (1, -1):
        params = model.params.copy()
        params[place] += sign * step
        logits = trainer.predict(params, x).astype(np.float64)
        losses.append(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(20), y]))
    slope = (losses[0] - losses[1]) / (2 * step)
    assert trainer.gradient(model.params, x, y)[place] == pytest.approx(slope, rel=2e-3)


def test_naming_what_trains_anyway_changes_nothing():
    assert loaded(train=["W"]).plan == loaded().plan


def test_train_wins_over_freeze():
    model = loaded(freeze=["*"], train=["b", "temperature"])
    assert {param.name for param in model.plan.params if param.trainable} == {"b", "temperature"}


def test_ones_and_zeros_of_a_layer_normalization_in_the_graph():
    """They are what an exporter makes up for a normalization without weights; `train` makes both some."""
    text = """(float[N,4] x) => (float[N,3] y) <float[4,6] W, float[6,3] V> { u = MatMul(x, W)
        s = Constant<value = float[6] {1.0, 1.0, 1.0, 1.0, 1.0, 1.0}>()
        z = Constant<value = float[6] {0.0, 0.0, 0.0, 0.0, 0.0, 0.0}>()
        [norm] n = LayerNormalization(u, s, z) y = MatMul(n, V) }"""
    model = assert_computes(edgefl.load(onnx_model(text)))
    assert untrained(model) == {"norm.scale": "a constant in the graph", "norm.bias": "a constant in the graph"}
    assert model.plan.num_trainable == 24 + 18
    for train in (["norm.scale"], ["norm.scale", "norm.bias"]):
        trained = assert_computes(edgefl.load(onnx_model(text), train=train))
        assert trained.plan.num_trainable == 24 + 6 + 6 + 18


def test_constants_in_the_graph_and_computed_ones():
    text = (
        "(float[N,4] x) => (float[N,4] y) <float[4,4] W, float[4] p, float[4] q, float[4] o>"
        "{ h = MatMul(x, W) r = Relu(h) K = Constant<value = float[4] {1, 2, 3, 4}>() [k] g = Mul(r, K)"
        " s = Mul(p, q) [s] m = Mul(g, s) y = Relu(m) }"
    )
    model = assert_computes(edgefl.load(onnx_model(text)))
    assert untrained(model) == {
        "k.constant": "a constant in the graph",
        "s.constant": "computed from other constants",
        "p": "an option of an op, or of a computation with constants, or read by no output that is trained",
        "q": "an option of an op, or of a computation with constants, or read by no output that is trained",
    }
    trained = assert_computes(edgefl.load(onnx_model(text), train=["k.constant"]))
    assert "k.constant" not in untrained(trained)
    saved = edgefl.load(trained.to_bytes(moved(trained)), train=["k.constant"])
    assert (saved.params == moved(trained)).all()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("s.constant", "train='s.constant' names 's.constant', which can't be trained: computed from other constants"),
        ("bn.m", "train='bn.m' names 'bn.m', which can't be trained: running statistics"),
        ("tempratur", "train='tempratur' matches no weight of the model: .*temperature"),
    ],
)
def test_what_can_not_train_is_refused_with_the_reason(name, why):
    if name == "tempratur":
        with pytest.raises(UsageError, match=why):
            loaded(train=[name])
        return
    text = (
        "(float[N,4] x) => (float[N,4] y) <float[4,4] W, float[4] p, float[4] g, float[4] b, float[4] m, float[4] v>"
        "{ h = MatMul(x, W) n = BatchNormalization(h, g, b, m, v) s = Mul(p, p) [s] y = Mul(n, s) }"
    )
    proto = onnx_model(text, v=STD)
    for tensor in proto.graph.initializer:
        if tensor.name == "m":
            tensor.name = "bn.m"
    for node in proto.graph.node:
        node.input[:] = ["bn.m" if read == "m" else read for read in node.input]
    with pytest.raises(UsageError, match=why):
        edgefl.load(proto, train=[name])


def test_inspect_tells_all_of_it():
    model = loaded()
    found = summarize(model)
    assert [(item["name"], item["can_train"]) for item in found["untrained"]] == [
        ("mean", True), ("std", True), ("temperature", True),
    ]  # fmt: skip
    assert "stays   temperature (1): a single number; --train temperature trains it" in describe(model)
    twice = "(float[N,4] x) => (float[N,4] y) <float[4,4] W>{ h = MatMul(x, W) r = Relu(h) y = MatMul(r, W) }"
    tied = onnx_model(twice)
    assert "tied    W: one param of h, y; --untie trains them apart" in describe(edgefl.load(tied))
    assert summarize(model.plan)["untrained"] is None


def test_trained_scaling_is_in_the_skeleton():
    model = loaded(train=["*"])
    made = Skeleton.from_bytes(skeleton.make(model).to_bytes(), len(model.params))
    assert b"".join(made.pieces(moved(model))) == model.to_bytes(moved(model))


class TestTorch:
    pytestmark = TORCH

    @pytest.mark.parametrize("how", EXPORTS)
    def test_learnable_temperature_and_scaling_train_as_in_torch(self, how, tmp_path):
        import torch
        from torch import nn

        class Scaled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.shift, self.factor = nn.Parameter(torch.randn(4)), nn.Parameter(torch.rand(4) + 0.5)
                self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
                self.slope, self.temperature = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor([1.3]))

            def forward(self, x):
                h = self.hidden((x - self.shift) * self.factor)
                return self.head(torch.relu(h) + self.slope * h) / self.temperature

        torch.manual_seed(1)
        net = Scaled().eval()
        model = edgefl.load(
            export(net, (4,), how, tmp_path), loss="mse", train=["shift", "factor", "slope", "temperature"]
        )
        assert not model.untrained
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(8, 4)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
        fitted = edgefl.Trainer(model.plan).fit(model.params, x, y, epochs=1, batch_size="all", lr=0.1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        torch.nn.functional.mse_loss(net(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
        file = edgefl.load(model.to_bytes(model.params + fitted.delta), loss="mse")
        ours = OnnxEvaluator(file).predict(file.params, x)
        np.testing.assert_allclose(ours, net(torch.from_numpy(x)).detach().numpy(), rtol=0, atol=1e-4)
