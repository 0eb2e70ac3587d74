"""Tensors that several nodes read: trained as PyTorch trains them, saved as they came."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import assert_computes, from_pytorch, moved, onnx_model
from torch_export import EXPORTS, TORCH, export

import edgefl
from edgefl.core.protobuf import without_stamp
from edgefl.core.skeleton import Skeleton
from edgefl.errors import ModelError, UsageError
from edgefl.onnx import skeleton
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.summary import summarize
from edgefl.onnx.untrained import LEADING

ONE = "one"  # what is shared is one param
SPLIT = "split"  # equal tensors of different layers, which are written apart once they have changed
FOLDED = "folded"  # one param; but the exporter has left out a batch normalization that PyTorch trains
LOSSY = "lossy"  # as SPLIT; but the exporter has left out biases of zeros that PyTorch trains
NETS = {  # net of torch_shared.py -> shape of a sample, and what each exporter leaves of its sharing
    "linear_twice": ((4,), {}),
    "linear_thrice_with_fresh_bias": ((4,), {}),
    "weight_assigned": ((4,), {}),
    "weight_scripted": ((4,), {}),
    "conv_twice": ((4, 6, 6), {}),
    "depthwise_twice": ((3, 6, 6), {}),
    "steps_by_hand": ((5, 3), {}),
    "embedding_twice": (None, {}),
    "trained_batch_norm_twice": ((4, 6, 6), {"folded": FOLDED}),
    "trained_layer_norm_twice": ((4,), {}),
    "lstm_twice": ((5, 4), {}),
    "gru_twice": ((5, 4), {}),
    "fresh_layer_norms": ((4,), {how: SPLIT for how in EXPORTS}),
    "fresh_batch_norms": ((1, 8, 8), {how: SPLIT for how in EXPORTS}),
    "fresh_biases": ((4,), {how: SPLIT for how in EXPORTS}),
    "fresh_layer_norm_twice": ((4,), {}),
    "fresh_batch_norm_twice": ((4, 6, 6), {"folded": FOLDED, "unfolded": SPLIT, "dynamo": SPLIT}),  # mean from bias
    "copied_layers": ((4,), {how: SPLIT for how in EXPORTS}),
    "copied_module": ((4,), {how: SPLIT for how in EXPORTS}),
    "encoder_of_two_layers": ((5, 3), {"folded": SPLIT, "unfolded": SPLIT, "dynamo": LOSSY}),
    "embedding_tied_without_bias": (None, {}),
    "embedding_tied_to_the_output": (None, {}),
    "language_model": (None, {"folded": SPLIT, "unfolded": SPLIT, "dynamo": SPLIT}),  # fresh norms
    "weight_straight_and_transposed": ((4,), {}),
    "tied_autoencoder": ((20,), {}),
    "tied_behind_images": ((3, 4, 4), {}),
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


def assert_trains_as_torch(name: str, source: bytes, outcome: str) -> None:
    shape, _ = NETS[name]
    x, y = data_of(net_of(name), shape)
    model = assert_computes(edgefl.load(source, loss="mse"), tolerance=1e-4)
    before = OnnxEvaluator(model).predict(model.params, x)
    for steps in (1, 4):
        fitted = edgefl.Trainer(model.plan).fit(model.params, x, y, epochs=steps, batch_size="all", lr=0.1)
        saved = model.to_bytes(after := model.params + fitted.delta)
        file = edgefl.load(saved, loss="mse")
        assert file.plan == model.plan
        np.testing.assert_allclose(file.params, after, rtol=1e-6, err_msg="the saved file has other params")
        ours = OnnxEvaluator(file).predict(file.params, x)
        np.testing.assert_allclose(ours, edgefl.Trainer(model.plan).predict(after, x), rtol=0, atol=1e-4)
        assert (initializers(saved) == initializers(source)) == (outcome in (ONE, FOLDED))
        if outcome in (ONE, SPLIT):
            theirs = torch_fits(net_of(name), x, y, steps)
            assert np.abs(theirs - before).max() > 1e-3, "the step is to be seen"
            bound = 2e-3 * np.abs(theirs - before).max()
            assert np.abs(ours - theirs).max() <= (min(1e-4, bound) if steps == 1 else bound)


class TestTorch:
    pytestmark = TORCH

    @pytest.mark.parametrize("how", EXPORTS)
    @pytest.mark.parametrize("name", NETS)
    def test_trains_as_torch_does(self, name, how, tmp_path):
        shape, outcomes = NETS[name]
        assert_trains_as_torch(name, export(net_of(name), shape, how, tmp_path), outcomes.get(how, ONE))

    @pytest.mark.parametrize("name", ["copied_layers", "encoder_of_two_layers", "language_model", "tied_autoencoder"])
    def test_the_newer_exporter_leaves_everything_in_if_it_does_not_optimize(self, name, tmp_path):
        shape, _ = NETS[name]
        source = export(net_of(name), shape, "dynamo", tmp_path, optimize=False)
        assert_trains_as_torch(name, source, ONE)

    @pytest.mark.parametrize("how", ["folded", "unfolded"])
    def test_copies_are_told_and_can_be_tied(self, how, tmp_path):
        source = export(net_of("copied_layers"), (4,), how, tmp_path)
        apart, one = edgefl.load(source), edgefl.load(source, tie=["parts.0"])
        copies = [item for item in apart.shared if item.kind == "copy"]
        assert [item.name for item in copies] == ["parts.0.weight.2", "parts.0.bias.2"]
        assert [(item.name, len(item.nodes), item.kind) for item in one.shared] == [
            ("parts.0.weight", 2, "tied"),
            ("parts.0.bias", 2, "tied"),
        ]
        assert apart.plan.num_params - one.plan.num_params == 20
        assert_computes(one)

    def test_scripted_module_is_tied_behind_an_identity(self, tmp_path):
        import io

        import torch

        net, buffer = net_of("embedding_tied_to_the_output"), io.BytesIO()
        tokens = torch.randint(0, 10, (2, 11))
        torch.onnx.export(torch.jit.script(net), (tokens,), buffer, dynamo=False, input_names=["input"])
        model = edgefl.load(buffer.getvalue(), loss="mse")
        assert b"Identity" in buffer.getvalue()
        assert [(item.name, item.nodes) for item in model.shared] == [
            ("table.weight", ("/table/Gather", "/output/Gemm"))
        ]


APART = {  # weights, nodes from x to k (N, 4), and what is refused: no param has both forms
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
}
ONE_PARAM = {  # weights, nodes, and the readers of what is shared
    "straight_and_transposed": (
        "float[4,4] W",
        "[a] h = MatMul(x, W) T = Transpose(W) [b] k = MatMul(h, T)",
        {"W": ("a", "b")},
    ),
    "transposed_and_straight": (
        "float[6,4] W",
        "T = Transpose(W) [a] h = MatMul(x, T) r = Tanh(h) [b] k = MatMul(r, W)",
        {"W": ("a", "b")},
    ),
    "two_ops": ("float[4,4] W", "[a] h = MatMul(x, W) [b] k = Gemm(h, W)", {"W": ("a", "b")}),
    "two_slots": (
        "float[4,4] W, float[4] s, float[4] b",
        "h = MatMul(x, W) [n] l = LayerNormalization(h, s, b) [o] k = LayerNormalization(l, b, s)",
        {"s": ("n", "o"), "b": ("n", "o")},
    ),
    "bias_of_two_layers": (
        "float[4,4] V, float[4,4] W, float[4] b",
        "[a] h = Gemm(x, V, b) r = Relu(h) [b] k = Gemm(r, W, b)",
        {"b": ("a", "b")},
    ),
    "behind_identity": (
        "float[4,4] W, float[4] b, float[4] c",
        "V = Identity(W) [a] h = Gemm(x, W, b) r = Relu(h) [b] k = Gemm(r, V, c)",
        {"W": ("a", "b")},
    ),
    "narrow_and_back": (
        "float[4,3] W, float[4,4] V, float[4,4] U",
        "[v] h = MatMul(x, V) [a] m = MatMul(h, W) r = Tanh(m) T = Transpose(W) [b] n = MatMul(r, T)"
        " [u] k = MatMul(n, U)",
        {"W": ("a", "b")},
    ),
}


def rows(weights: str, nodes: str, **arrays: np.ndarray) -> onnx.ModelProto:
    """The nodes, and a layer Z of its own behind them."""
    return onnx_model(
        f"(float[N,4] x) => (float[N,3] y) <{weights}, float[4,3] Z> {{ {nodes} y = MatMul(k, Z) }}", **arrays
    )


@pytest.mark.parametrize("name", APART)
def test_tensor_that_no_param_can_be_is_refused_and_can_be_untied_or_frozen(name):
    weights, nodes, why = APART[name]
    with pytest.raises(ModelError) as refused:
        edgefl.load(rows(weights, nodes))
    assert why in str(refused.value)
    assert "untie=['W']" in str(refused.value) and "freeze=['W']" in str(refused.value)
    untied = assert_computes(edgefl.load(rows(weights, nodes), untie=["W"]))
    assert [param.name for param in untied.plan.params] == ["W", "W.2", "Z"]
    model = assert_computes(edgefl.load(rows(weights, nodes), freeze=["W"]))
    assert model.to_bytes(moved(model)) != model.source
    assert initializers(model.to_bytes(moved(model))) == initializers(model.source)


@pytest.mark.parametrize("name", ONE_PARAM)
def test_tensor_that_nodes_use_differently_is_one_param(name):
    weights, nodes, readers = ONE_PARAM[name]
    model = assert_computes(edgefl.load(rows(weights, nodes)))
    assert {item.name: item.nodes for item in model.shared} == readers
    assert {item.kind for item in model.shared} == {"tied"}
    saved = model.to_bytes(moved(model))
    assert initializers(saved) == initializers(model.source)
    again = edgefl.load(saved)
    assert again.plan == model.plan and (again.params == moved(model)).all()
    assert_gradient_is_the_sum(model, edgefl.load(rows(weights, nodes), untie=list(readers)))


def assert_gradient_is_the_sum(model: edgefl.Model, untied: edgefl.Model) -> None:
    """Of the gradients that each reader has when it has a param of its own; compared in the file's order."""
    x, y = np.random.default_rng(5).normal(size=(6, 4)).astype(np.float32), np.array([0, 1, 2, 0, 1, 2])
    found, alone = in_file(model, x, y), in_file(untied, x, y)
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5)


def in_file(model: edgefl.Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient at each position of the file vector, summed over the params that are there."""
    gradient = edgefl.Trainer(model.plan).gradient(model.params, x, y)
    total = np.zeros(sum(origin.values.size for origin in model.origins))
    ends = np.cumsum([param.size for param in model.plan.params])[:-1]
    for part, binding in zip(np.split(gradient, ends), model.bindings, strict=True):
        for place in binding.places:
            np.add.at(total, place.where, part)
    return total


def test_tensor_that_scales_the_input_and_the_output_is_not_trained():
    """Its first reader scales the input, so both do; `train` says otherwise."""
    text = rows("float[4,4] W, float[4] s", "[d] n = Div(x, s) h = MatMul(n, W) [m] k = Mul(h, s)")
    model = assert_computes(edgefl.load(text))
    assert [(item.name, item.shape, item.reason) for item in model.untrained] == [("s", (4,), LEADING)]
    assert [(param.name, param.trainable) for param in model.plan.params] == [("W", True), ("Z", True), ("s", False)]
    trained = assert_computes(edgefl.load(text, train=["s"]))
    assert [param.name for param in trained.plan.params] == ["s", "W", "Z"] and not trained.untrained


def test_tied_embedding_trains_and_can_be_frozen_or_untied():
    text = (
        "(int64[N,3] x) => (float[N,3,10] y) <float[10,4] E, float[4,4] W>"
        "{ [g] e = Gather(E, x) h = MatMul(e, W) T = Transpose(E) [m] y = MatMul(h, T) }"
    )
    model = assert_computes(edgefl.load(onnx_model(text)))
    assert [(param.name, param.shape) for param in model.plan.params] == [("E", [10, 4]), ("W", [4, 4])]
    assert assert_computes(edgefl.load(onnx_model(text), freeze=["E"])).plan.num_trainable == 16
    untied = assert_computes(edgefl.load(onnx_model(text), untie=["E"]))
    assert [param.size for param in untied.plan.params] == [40, 16, 40]


def test_output_layer_before_its_embedding_is_turned():
    """The first node that reads the weight is a dense one, in the order that suits it; an embedding needs rows."""
    text = (
        "(int64[N,3] x) => (float[N,3,4] y) <float[20,4] E, float[4,20] F>"
        "{ f = Gather(E, x) T = Transpose(F) [d] h = MatMul(f, F) g = Gather(T, x) s = MatMul(h, T) y = Add(s, g) }"
    )
    model = assert_computes(edgefl.load(onnx_model(text)))
    assert [(param.name, param.shape) for param in model.plan.params] == [("E", [20, 4]), ("F", [20, 4])]
    assert [item.nodes for item in model.shared] == [("d", "g", "s")]


@pytest.mark.parametrize("first", ["W", "T"])
def test_folded_transposed_copy_follows_its_tensor(first):
    """As exporters write an output layer that is tied to an embedding: W transposed, in an initializer of its own."""
    w = np.random.default_rng(4).normal(size=(10, 4)).astype(np.float32)
    tensors = {"W": "float[10,4] table.W", "T": "float[4,10] T"}
    declared = ", ".join([tensors[first], *(text for name, text in tensors.items() if name != first)])
    text = f"(int64[N,3] x) => (float[N,3,10] y) <{declared}> {{ e = Gather(table.W, x) r = Tanh(e) y = MatMul(r, T) }}"
    proto = onnx_model(text.replace("table.W", "table__W"), table__W=w, T=np.ascontiguousarray(w.T))
    model = assert_computes(edgefl.load(proto))
    assert [(param.name, param.shape) for param in model.plan.params] == [("table__W", [10, 4])] or first == "T"
    saved = {t.name: numpy_helper.to_array(t) for t in edgefl_graph(model.to_bytes(moved(model))).initializer}
    assert (saved["T"] == saved["table__W"].T).all() and (saved["T"] != w.T).any()
    assert len(edgefl.load(proto, untie=["T"]).plan.params) == 2
    made = Skeleton.from_bytes(skeleton.make(model).to_bytes(), len(model.params))
    assert b"".join(made.pieces(moved(model))) == without_stamp(model.to_bytes(moved(model)))


def test_named_tensors_of_pytorch_that_began_as_one_transposed_are_two():
    """A decoder that begins as its encoder transposed, and trains apart."""
    w = np.random.default_rng(4).normal(size=(4, 6)).astype(np.float32)
    text = "float[4,6] encoder__W, float[6,4] decoder__W", "h = MatMul(x, encoder__W) k = MatMul(h, decoder__W)"
    proto = rows(*text, encoder__W=w, decoder__W=np.ascontiguousarray(w.T))
    assert [param.size for param in edgefl.load(from_pytorch(proto)).plan.params] == [24, 24, 12]
    assert [param.size for param in edgefl.load(proto).plan.params] == [24, 12], "others do not name modules"
    assert [param.size for param in edgefl.load(from_pytorch(proto), tie=["*coder.W"]).plan.params] == [24, 12]


def edgefl_graph(data: bytes) -> onnx.GraphProto:
    return onnx.ModelProto.FromString(data).graph


def test_equal_tensors_are_one_by_tie_alone():
    w = np.random.default_rng(4).normal(size=(4, 4)).astype(np.float32)
    text = "float[4,4] V, float[4,4] W", "h = MatMul(x, V) r = Relu(h) k = MatMul(r, W)"
    apart = edgefl.load(rows(*text, V=w, W=w))
    one = assert_computes(edgefl.load(rows(*text, V=w, W=w), tie=["V", "W"]))
    assert [param.name for param in apart.plan.params] == ["V", "W", "Z"]
    assert [param.name for param in one.plan.params] == ["V", "Z"]
    assert [(item.name, item.nodes) for item in one.shared] == [("V", ("h", "k"))]


@pytest.mark.parametrize("option", ["tie", "untie", "train"])
def test_misspelt_name_gets_the_nearest(option):
    text = rows("float[4,4] Weights", "k = MatMul(x, Weights)")
    with pytest.raises(UsageError, match=f"{option}='Wieghts' matches no .*Weights"):
        edgefl.load(text, **{option: ["Wieghts"]})


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
    source = rows(weights, nodes, **{fresh: np.full(4, value, np.float32)})
    model = assert_computes(edgefl.load(source))
    assert [param.name for param in model.plan.params if param.name.startswith(fresh)] == [fresh, f"{fresh}.2"]
    assert (f"{fresh}.2", "fresh") in [(item.name, item.kind) for item in model.shared]
    tied = assert_computes(edgefl.load(source, tie=[fresh]))
    assert [param.name for param in tied.plan.params if param.name.startswith(fresh)] == [fresh]


@pytest.mark.parametrize("second", ["PRelu(r, s)", "Add(r, s)", "Gemm(r, G, s)"])
@pytest.mark.parametrize("first", ["Mul(p, s)", "Sub(s, p)"])
def test_readers_of_a_single_number_of_which_one_trains_keep_their_names(first, second):
    text = f"""(float[N,6] x) => (float[N,3] y) <float[6,1] U, float[1,1] W, float[1,1] G, float[1,3] V, float[1] s>
        {{ p = MatMul(x, U) q = {first} r = MatMul(q, W) t = {second} y = MatMul(t, V) }}"""
    model = assert_computes(edgefl.load(onnx_model(text, s=np.ones(1, np.float32))))
    params = moved(model)
    saved = edgefl.load(model.to_bytes(params))
    assert saved.plan.to_bytes() == model.plan.to_bytes()
    assert (saved.params == params).all()


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
    assert_computes(frozen)
    plan, order = model.plan.freeze(["W"])
    assert [node.params for node in plan.nodes] == [[2, 0], [], [2, 0], [1]] and order == [1, 2, 0]
