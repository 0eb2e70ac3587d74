"""Tensors that several nodes read: trained as PyTorch trains them, saved as they came, or refused by name."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx_files import assert_computes, moved, onnx_model
from torch_export import EXPORTS, TORCH, export

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.summary import summarize

ONE = "one"  # what is shared is one param
SPLIT = "split"  # equal tensors of different layers, which may have to be written apart
REFUSED = "refused"
NETS = {  # net of torch_shared.py -> shape of a sample, and what each exporter leaves of its sharing
    "linear_twice": ((4,), {}),
    "linear_thrice_with_fresh_bias": ((4,), {}),
    "weight_assigned": ((4,), {}),
    "conv_twice": ((4, 6, 6), {}),
    "depthwise_twice": ((3, 6, 6), {}),
    "steps_by_hand": ((5, 3), {"folded": REFUSED}),
    "embedding_twice": (None, {}),
    "trained_batch_norm_twice": ((4, 6, 6), {"folded": REFUSED}),
    "trained_layer_norm_twice": ((4,), {}),
    "lstm_twice": ((5, 4), {"folded": REFUSED}),
    "gru_twice": ((5, 4), {"folded": REFUSED}),
    "fresh_layer_norms": ((4,), {how: SPLIT for how in EXPORTS}),
    "fresh_batch_norms": ((1, 8, 8), {how: SPLIT for how in EXPORTS}),
    "fresh_biases": ((4,), {how: SPLIT for how in EXPORTS}),
    "fresh_layer_norm_twice": ((4,), {}),
    "fresh_batch_norm_twice": ((4, 6, 6), {"folded": REFUSED, "unfolded": SPLIT, "dynamo": SPLIT}),  # mean from bias
    "copied_layers": ((4,), {"folded": SPLIT, "unfolded": SPLIT, "dynamo": REFUSED}),
    "encoder_of_two_layers": ((5, 3), {"folded": REFUSED, "unfolded": SPLIT, "dynamo": REFUSED}),
    "embedding_tied_without_bias": (None, {how: REFUSED for how in EXPORTS}),
    "embedding_tied_to_the_output": (None, {how: REFUSED for how in EXPORTS}),
    "weight_straight_and_transposed": ((4,), {how: REFUSED for how in EXPORTS}),
}


def net_of(name: str):
    import torch
    import torch_shared

    torch.manual_seed(4)
    return getattr(torch_shared, name)().eval()


def data_of(net, shape: tuple[int, ...] | None, n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    import torch

    rng = np.random.default_rng(7)
    x = rng.integers(0, 10, (n, 11)) if shape is None else rng.normal(size=(n, *shape)).astype(np.float32)
    with torch.no_grad():
        outputs = net(torch.from_numpy(x)).shape
    return x, rng.normal(size=tuple(outputs)).astype(np.float32)


def torch_fits(net, x: np.ndarray, y: np.ndarray, steps: int) -> np.ndarray:
    """What the net answers after full-batch SGD on the mean squared error."""
    import torch

    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net.train()
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(inputs), targets).backward()
        optimizer.step()
    with torch.no_grad():
        return net.eval()(inputs).numpy()


def initializers(data: bytes) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tuple(tensor.dims) for tensor in onnx.ModelProto.FromString(data).graph.initializer}


def assert_trains_as_torch(name: str, source: bytes, *, keeps_initializers: bool) -> None:
    shape, _ = NETS[name]
    x, y = data_of(net_of(name), shape)
    model = assert_computes(edgefl.load(source, loss="mse"), tolerance=1e-4)
    before = OnnxEvaluator(model).predict(model.params, x)
    for steps in (1, 4):
        fitted = edgefl.Trainer(model.plan).fit(model.params, x, y, epochs=steps, batch_size="all", lr=0.1)
        saved = model.to_bytes(model.params + fitted.delta)
        ours = OnnxEvaluator(file := edgefl.load(saved, loss="mse")).predict(file.params, x)
        theirs = torch_fits(net_of(name), x, y, steps)
        assert np.abs(theirs - before).max() > 1e-3, "the step is to be seen"
        assert np.abs(ours - theirs).max() <= 2e-3 * np.abs(theirs - before).max()
        if keeps_initializers:
            assert initializers(saved) == initializers(source)


class TestTorch:
    pytestmark = TORCH

    @pytest.mark.parametrize("how", EXPORTS)
    @pytest.mark.parametrize("name", NETS)
    def test_trains_as_torch_does_or_is_refused(self, name, how, tmp_path):
        shape, outcomes = NETS[name]
        source = export(net_of(name), shape, how, tmp_path)
        if outcomes.get(how, ONE) == REFUSED:
            with pytest.raises(
                ModelError, match=r"(is also|holds the numbers of) the .* of node .*: (export|use one module)"
            ):
                edgefl.load(source, loss="mse")
            return
        assert_trains_as_torch(name, source, keeps_initializers=outcomes.get(how, ONE) == ONE)

    @pytest.mark.parametrize("name", ["copied_layers", "encoder_of_two_layers"])
    def test_what_the_new_exporter_merges_trains_if_it_does_not_optimize(self, name, tmp_path):
        shape, _ = NETS[name]
        assert_trains_as_torch(
            name, export(net_of(name), shape, "dynamo", tmp_path, optimize=False), keeps_initializers=False
        )


HALF_SHARED = {  # weights, nodes from x to k (N, 4), and what is refused
    "straight_and_transposed": (
        "float[4,4] W",
        "[a] h = MatMul(x, W) T = Transpose(W) [b] k = MatMul(h, T)",
        "node 'b' (MatMul): its weight 'W' is also the weight of node 'a' (MatMul)",
    ),
    "two_ops": (
        "float[4,4] W",
        "[a] h = MatMul(x, W) [b] k = Gemm(h, W)",
        "node 'b' (Gemm): its weight 'W' is also the weight of node 'a' (MatMul)",
    ),
    "two_slots": (
        "float[4,4] W, float[4] s, float[4] b",
        "h = MatMul(x, W) [n] l = LayerNormalization(h, s, b) [o] k = LayerNormalization(l, b, s)",
        "node 'o' (LayerNormalization): its bias 's' is also the scale of node 'n' (LayerNormalization)",
    ),
    "two_scales": (
        "float[4,4] W",
        "[a] h = Gemm(x, W) [b] k = Gemm<alpha=0.5>(h, W)",
        "node 'b' (Gemm): its weight 'W' is also the weight of node 'a' (Gemm)",
    ),
    "overlapping_slices": (
        "float[6,4] W, int64[1] a = {0}, int64[1] b = {4}, int64[1] c = {2}, int64[1] d = {6}",
        "V = Slice(W, a, b, a) U = Slice(W, c, d, a) [v] h = MatMul(x, V) [u] g = MatMul(x, U) k = Add(h, g)",
        "node 'u' (MatMul): its weight 'W' is also the weight of node 'v' (MatMul)",
    ),
    "scaled_before_and_after": (
        "float[4,4] W, float[4] s",
        "[d] n = Div(x, s) h = MatMul(n, W) [m] k = Mul(h, s)",
        "node 'm' (Mul): its constant 's' is also the constant of node 'd' (Div)",
    ),
}


def rows(weights: str, nodes: str, **arrays: np.ndarray) -> onnx.ModelProto:
    """The nodes, and a layer Z of its own behind them."""
    return onnx_model(
        f"(float[N,4] x) => (float[N,3] y) <{weights}, float[4,3] Z> {{ {nodes} y = MatMul(k, Z) }}", **arrays
    )


@pytest.mark.parametrize("name", HALF_SHARED)
def test_weight_that_serves_in_different_ways_is_refused_and_can_be_frozen(name):
    weights, nodes, why = HALF_SHARED[name]
    with pytest.raises(ModelError) as refused:
        edgefl.load(rows(weights, nodes))
    assert why in str(refused.value)
    advice = re.search(r"freeze=\['(\w)'\]", str(refused.value))
    assert advice is not None
    names = ["s", "b"] if name == "two_slots" else [advice[1]]
    model = assert_computes(edgefl.load(rows(weights, nodes), freeze=names), freeze=names)
    assert model.to_bytes(moved(model)) != model.source
    assert initializers(model.to_bytes(moved(model))) == initializers(model.source)


def test_tied_embedding_is_refused_with_its_two_nodes_and_can_be_frozen():
    text = (
        "(int64[N,3] x) => (float[N,3,10] y) <float[10,4] E, float[4,4] W>"
        "{ [g] e = Gather(E, x) h = MatMul(e, W) T = Transpose(E) [m] y = MatMul(h, T) }"
    )
    why = r"node 'm' \(MatMul\): its weight 'E' is also the weight of node 'g' \(Gather\), .*: export .*freeze=\['E'\]"
    with pytest.raises(ModelError, match=why):
        edgefl.load(onnx_model(text))
    assert assert_computes(edgefl.load(onnx_model(text), freeze=["E"]), freeze=["E"]).plan.num_trainable == 16


FRESH = {
    "bias": ("float[4,4] V, float[4,4] W, float[4] b", "h = Gemm(x, V, b) r = Relu(h) k = Gemm(r, W, b)", "b"),
    "scale": (
        "float[4,4] W, float[4] s, float[4] b",
        "h = MatMul(x, W) l = LayerNormalization(h, s, b) k = LayerNormalization(l, s, b)",
        "s",
    ),
    "in_two_slots": ("float[4,4] W, float[4] s", "h = MatMul(x, W) k = LayerNormalization(h, s, s)", "s"),
    "factor": ("float[4,4] W, float[4] s", "h = MatMul(x, W) g = Mul(h, s) k = Add(g, s)", "s"),
}


@pytest.mark.parametrize("name", FRESH)
@pytest.mark.parametrize("value", [0, 1])
def test_equal_numbers_throughout_say_nothing_of_sharing(name, value):
    """A zero bias or a scale of ones that tf2onnx, say, has stored once for all layers."""
    weights, nodes, fresh = FRESH[name]
    model = assert_computes(edgefl.load(rows(weights, nodes, **{fresh: np.full(4, value, np.float32)})))
    assert [param.name for param in model.plan.params if param.name.startswith(fresh)] == [fresh, f"{fresh}.2"]


def test_bias_of_different_layers_is_a_param_of_each():
    """An exporter has merged them: layers with weights of their own do not share a bias."""
    model = assert_computes(edgefl.load(rows(*FRESH["bias"][:2])))
    assert [param.name for param in model.plan.params] == ["V", "b", "W", "b.2", "Z"]


def test_layer_used_twice_is_frozen_counted_and_moved_as_one():
    weights, nodes = "float[4,4] W, float[4] b", "h = Gemm(x, W, b) r = Relu(h) k = Gemm(r, W, b)"
    model = edgefl.load(rows(weights, nodes))
    assert [(param.name, param.size) for param in model.plan.params] == [("W", 16), ("b", 4), ("Z", 12)]
    assert [node.params for node in model.plan.nodes] == [[0, 1], [], [0, 1], [2]]
    found = summarize(model)
    assert found["num_params"] == 32
    assert [node["num_params"] for node in found["nodes"]] == [20, 0, 0, 12], "counted where they are read first"
    assert [node["params"] for node in found["nodes"]] == [["W", "b"], [], ["W", "b"], ["Z"]]
    frozen = edgefl.load(rows(weights, nodes), freeze=["W"])
    assert [(param.name, param.trainable) for param in frozen.plan.params] == [("b", True), ("Z", True), ("W", False)]
    assert_computes(frozen, freeze=["W"])
    plan, order = model.plan.freeze(["W"])
    assert [node.params for node in plan.nodes] == [[2, 0], [], [2, 0], [1]] and order == [1, 2, 0]
