"""Adapters beside frozen weights: the start, what trains, what is merged, what a file keeps, what is refused."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import onnx_model, ops, samples
from torch_export import EXPORTS, TORCH, export

import edgefl
from edgefl import codecs
from edgefl.core.protobuf import metadata_of
from edgefl.errors import ModelError, UsageError
from edgefl.onnx import skeleton, zoo
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.settings import AdapterSettings

GRAPHS = {
    "gemm": "(float[N,12] x) => (float[N,9] y) <float[12,9] W, float[9] b> { y = Gemm(x, W, b) }",
    "gemm, turned and scaled": """(float[N,12] x) => (float[N,9] y) <float[9,12] W, float[9] b>
        { y = Gemm<transB=1, alpha=0.5, beta=2.0>(x, W, b) }""",
    "matmul and bias": """(float[N,12] x) => (float[N,9] y) <float[12,9] W, float[9] b>
        { h = MatMul(x, W) y = Add(h, b) }""",
    "bias first": """(float[N,12] x) => (float[N,9] y) <float[12,9] W, float[9] b>
        { h = MatMul(x, W) y = Add(b, h) }""",
    "along the last of three axes": """(float[N,3,12] x) => (float[N,3,9] y) <float[12,9] W> { y = MatMul(x, W) }""",
    "of an axis more": """(float[N,3,12] x) => (float[N,3,9] y) <float[1,12,9] W> { y = MatMul(x, W) }""",
    "behind an image": """(float[N,2,4,4] x) => (float[N,9] y) <float[3,2,3,3] K, float[12,9] W>
        { c = Conv(x, K) f = Flatten(c) y = MatMul(f, W) }""",
    "read elsewhere too": """(float[N,12] x) => (float[N,12] y) <float[12,12] W>
        { h = MatMul(x, W) t = Tanh(h) y = Add(h, t) }""",
    "through a transpose": """(float[N,12] x) => (float[N,9] y) <float[9,12] W>
        { V = Transpose<perm=[1,0]>(W) y = MatMul(x, V) }""",
}


def learned(model: edgefl.Model, seed: int = 5) -> np.ndarray:
    """Params (P,) as training may leave them."""
    out, count = model.params.copy(), model.plan.num_trainable
    out[:count] += np.random.default_rng(seed).normal(0, 0.3, count).astype(np.float32)
    return out


def predicted(model: edgefl.Model, params: np.ndarray, x: np.ndarray) -> np.ndarray:
    return edgefl.Trainer(model.plan).predict(params, x)


def tensors(model: edgefl.Model, params: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([0, *(param.size for param in model.plan.params)])
    return {
        param.name: params[begin:end].reshape(param.shape)
        for param, (begin, end) in zip(model.plan.params, pairwise(ends), strict=True)
    }


@pytest.mark.parametrize("text", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("ir_version", [3, 8])
def test_it_begins_as_the_base_and_merges_into_it(text, ir_version):
    base = edgefl.load(onnx_model(text, ir_version=ir_version), loss="mse")
    model = base.with_adapters(rank=2)
    assert len(model.adapters.sites) == 1
    x = samples(model, 5)
    np.testing.assert_allclose(predicted(model, model.params, x), predicted(base, base.params, x), rtol=0, atol=1e-6)
    params = learned(model)
    expected = predicted(model, params, x)
    assert np.abs(expected - predicted(base, base.params, x)).max() > 0.01
    for file in (model.to_bytes(params), model.to_bytes(params, merge=False)):
        again = edgefl.load(file, loss="mse")
        np.testing.assert_allclose(OnnxEvaluator(again).predict(again.params, x), expected, rtol=1e-5, atol=1e-5)


def test_the_formula():
    """y = x W + b + (alpha / rank) (x A) B, against NumPy in float64."""
    model = edgefl.load(onnx_model(GRAPHS["gemm"]), loss="mse").with_adapters(rank=2, alpha=5, trained="AB")
    params, x = learned(model), samples(model, 4)
    of = {name: value.astype(np.float64) for name, value in tensors(model, params).items()}
    turned = lambda matrix, rows: matrix if matrix.shape[0] == rows else matrix.T  # noqa: E731
    a, b = turned(of["edgefl.adapters.W.A"], 12), turned(of["edgefl.adapters.W.B"], 2)
    expected = x @ turned(of["W"], 12) + of["b"] + 2.5 * (x @ a) @ b
    np.testing.assert_allclose(predicted(model, params, x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("which", "names"), [("B", ["B"]), ("AB", ["A", "B"])])
def test_only_adapters_train(which, names):
    model = edgefl.load(zoo.from_spec("mlp:64-32-10", 0)).with_adapters(rank=4, trained=which)
    moved = [param.name for param in model.plan.params if param.trainable]
    assert moved == [f"edgefl.adapters.{layer}.weight.{name}" for layer in ("fc1", "fc2") for name in names]
    x, y = samples(model, 40), np.arange(40) % 10
    trainer = edgefl.Trainer(model.plan)
    before = trainer.evaluate(model.params, x, y).loss
    result = trainer.fit(model.params, x, y, epochs=20, batch_size=10, lr=0.1)
    assert trainer.evaluate(model.params + result.delta, x, y).loss < before / 2
    assert not result.delta[model.plan.num_trainable :].any()


def test_more_is_trained_where_it_is_named():
    model = edgefl.load(zoo.from_spec("mlp:64-32-10", 0)).with_adapters(rank=4, also=["fc2"])
    moved = {param.name for param in model.plan.params if param.trainable}
    assert moved == {"edgefl.adapters.fc1.weight.B", "fc2.weight", "fc2.bias"}


def test_the_mean_of_adapters_is_the_adapter_of_the_mean():
    """Where B alone is trained; where both are, it is not (FFA-LoRA)."""
    gaps = {}
    for which in ("B", "AB"):
        model = edgefl.load(onnx_model(GRAPHS["gemm"]), loss="mse").with_adapters(rank=2, trained=which)
        x, one, other = samples(model, 5), learned(model, 1), learned(model, 2)
        mean = (predicted(model, one, x) + predicted(model, other, x)) / 2
        gaps[which] = np.abs(predicted(model, (one + other) / 2, x) - mean).max()
    assert gaps["B"] < 1e-5 < 1e-3 < gaps["AB"]


def test_names_choose_weights_and_nodes():
    base = edgefl.load(zoo.from_spec("mlp:64-48-32-10", 0))
    assert [site.weight for site in base.with_adapters(2, ["fc1*", "fc3"]).adapters.sites] == [
        "fc1.weight",
        "fc3.weight",
    ]
    text = "(float[N,12] x) => (float[N,9] y) <float[12,9] W> { [attn_q] y = MatMul(x, W) }"
    assert edgefl.load(onnx_model(text), loss="mse").with_adapters(2, ["*attn*"]).adapters.sites[0].weight == "W"
    with pytest.raises(UsageError, match=r"fc1\.weight"):
        base.with_adapters(2, ["fc1.wieght"])


def test_weights_no_larger_than_their_adapter_are_passed_over():
    base = edgefl.load(zoo.from_spec("mlp:64-32-2", 0))
    assert [site.weight for site in base.with_adapters(rank=4).adapters.sites] == ["fc1.weight"]
    with pytest.raises(UsageError, match=r"lower adapters\.rank"):
        base.with_adapters(rank=4, on=["fc2"])


def test_a_weight_of_several_nodes_gets_none():
    text = "(float[N,12] x) => (float[N,12] y) <float[12,12] W> { h = MatMul(x, W) t = Tanh(h) y = MatMul(t, W) }"
    with pytest.raises(UsageError, match="W is read by 2 nodes: --untie W"):
        edgefl.load(onnx_model(text), loss="mse").with_adapters(rank=2)
    base = edgefl.load(onnx_model(text), loss="mse")
    apart = edgefl.load(onnx_model(text), loss="mse", untie=["W"]).with_adapters(rank=2)
    assert len(apart.adapters.sites) == 2 and not apart.adapters.plain
    x, params = samples(base, 4), learned(apart)
    np.testing.assert_allclose(predicted(apart, apart.params, x), predicted(base, base.params, x), atol=1e-6)
    saved = edgefl.load(apart.to_bytes(params), loss="mse")
    np.testing.assert_allclose(OnnxEvaluator(saved).predict(saved.params, x), predicted(apart, params, x), atol=1e-4)


def test_inspect_tells_which_weights_have_none():
    from edgefl.onnx.summary import describe, summarize

    text = """(float[N,12] x) => (float[N,3] y) <float[12,12] W, float[12,3] V>
        { h = MatMul(x, W) t = Tanh(h) u = MatMul(t, W) y = MatMul(u, V) }"""
    base = edgefl.load(onnx_model(text), loss="mse")
    model = base.with_adapters(rank=2, on=["*"])
    assert summarize(base)["without_adapter"] is None and list(summarize(model)["without_adapter"]) == ["W"]
    assert "plain   W: no adapter, since it is read by 2 nodes: --untie W" in describe(model)
    small = edgefl.load(zoo.from_spec("mlp:64-32-2", 0)).with_adapters(rank=4)
    assert "plain   fc2.weight: no adapter, since it is no larger than its adapter" in describe(small)


def test_the_same_adapters_on_every_machine():
    base = edgefl.load(zoo.from_spec("mlp:64-32-10", 0))
    one, other = base.with_adapters(4), edgefl.load(base.source, adapters={"rank": 4})
    assert (one.plan.hash, one.params.tobytes()) == (other.plan.hash, other.params.tobytes())
    assert base.with_adapters(4, seed=1).params.tobytes() != one.params.tobytes()


def test_untouched_it_merges_to_the_bytes_that_came():
    base = edgefl.load(zoo.from_spec("mlp:64-32-10", 0))
    model = base.with_adapters(4)
    assert model.to_bytes() == model.to_bytes(model.params) == base.source


@pytest.mark.parametrize("trained", ["B", "AB"])
def test_a_base_in_bfloat16_takes_half_the_bytes(trained):
    """Frozen matrices are rounded, and A where it starts; vectors, and what trains in full, are as they were."""
    base = edgefl.load(zoo.from_spec("mlp:64-128-100-10", 0))
    exact, model = (base.with_adapters(4, trained=trained, also=["fc3"], base=how) for how in ("float32", "bfloat16"))
    assert model.plan.hash == exact.plan.hash
    was, now = tensors(exact, exact.params), tensors(model, model.params)
    for name, value in now.items():
        cut = value.view(np.uint32) & np.uint32(0xFFFF) == 0
        if name in ("fc1.weight", "fc2.weight") or name.endswith(".A"):
            assert cut.all() and np.abs(value - was[name]).max() <= 2**-8 * np.abs(was[name]).max() != 0
        else:
            assert np.array_equal(value, was[name]), name
    planes = codecs.get("planes")
    sizes = [len(planes.encode(of.params[of.plan.num_trainable :].copy())) for of in (exact, model)]
    assert sizes[1] < 0.5 * sizes[0]
    params, x = learned(model), samples(model, 3)
    for merge in (True, False):
        saved = edgefl.load(model.to_bytes(params, merge=merge))
        np.testing.assert_allclose(predicted(saved, saved.params, x), predicted(model, params, x), atol=1e-4)
    assert edgefl.load(model.to_bytes(params, merge=False), adapters=model.adapters.settings).plan == model.plan


def test_the_summary_counts_what_an_update_has():
    from edgefl.onnx.summary import summarize

    base = edgefl.load(zoo.from_spec("mlp:64-128-10", 0))
    model = base.with_adapters(4)
    assert summarize(base)["update_bytes_raw32"] == 4 * base.plan.num_params
    assert summarize(model)["update_bytes_raw32"] == 4 * model.plan.num_trainable == 4 * 4 * (128 + 10)


def test_a_file_that_keeps_its_adapters_loads_again(tmp_path):
    base = edgefl.load(zoo.from_spec("mlp:64-32-10", 0))
    model = base.with_adapters(4, ["fc1"], alpha=8, also=["fc2"], merge=False)
    params = learned(model)
    model.save(tmp_path / "kept.onnx", params)
    again = edgefl.load(tmp_path / "kept.onnx")
    assert again.plan.hash == model.plan.hash and (again.params == params).all()
    assert again.adapters.settings == AdapterSettings(4, ["*"], 8.0, "B", ["fc2"], merge=False)
    assert edgefl.load(tmp_path / "kept.onnx", adapters=AdapterSettings(4, ["fc1"], 8.0, "B", ["fc2"])).adapters
    with pytest.raises(UsageError, match="merge them"):
        edgefl.load(tmp_path / "kept.onnx", adapters={"rank": 8})
    with pytest.raises(UsageError, match="merge them"):
        again.with_adapters(2)
    merged = edgefl.load(again.to_bytes(params, merge=True))
    assert [param.name for param in merged.plan.params] == [param.name for param in base.plan.params]
    assert "adapters" not in metadata_of(merged.source)
    x = samples(model, 4)
    np.testing.assert_allclose(predicted(merged, merged.params, x), predicted(model, params, x), rtol=1e-5, atol=1e-5)


def test_a_file_whose_adapters_were_changed_is_refused():
    model = edgefl.load(zoo.from_spec("mlp:64-32-10", 0)).with_adapters(4, merge=False)
    proto = onnx.ModelProto.FromString(model.source)
    next(node for node in proto.graph.node if node.op_type == "Relu").input[0] = "edgefl.adapters.fc1.weight.up"
    with pytest.raises(ModelError, match="another program"):
        edgefl.load(proto.SerializeToString())
    proto = onnx.ModelProto.FromString(model.source)
    next(entry for entry in proto.metadata_props if entry.key == "edgefl.adapters").value = '{"rank": "much"}'
    with pytest.raises(ModelError, match="save it again"):
        edgefl.load(proto.SerializeToString())


def test_a_device_gets_the_file_with_adapters_beside():
    model = edgefl.load(zoo.from_spec("mlp:64-32-10", 0)).with_adapters(4)
    made, params = skeleton.make(model), learned(model)
    file = b"".join(made.pieces(params))
    assert (made.params_of(file) == params).all()
    x = samples(model, 4)
    proto = onnx.ModelProto.FromString(file)
    assert {"edgefl.adapters.fc1.weight.B"} <= {tensor.name for tensor in proto.graph.initializer}
    again = edgefl.load(proto)
    np.testing.assert_allclose(OnnxEvaluator(again).predict(again.params, x), predicted(model, params, x), atol=1e-5)


def test_a_scaling_comes_first():
    base = edgefl.load(zoo.from_spec("mlp:64-32-10", 0))
    both = edgefl.load(base.source, standardize=True, adapters={"rank": 4})
    assert ops(both)[:2] == ["sub", "mul"] and both.adapters
    from edgefl.onnx.scaling import with_scaling

    with pytest.raises(UsageError, match="comes first"):
        with_scaling(base.with_adapters(4))


@pytest.mark.parametrize(
    "wrong", [{"rank": -1}, {"rank": 4, "trained": "A"}, {"rank": 4, "alpha": 0}, {"rnak": 4}, ["rank"], "rank=4"]
)
def test_wrong_settings(wrong):
    with pytest.raises(UsageError, match="adapters"):
        edgefl.load(zoo.from_spec("mlp:64-32-10", 0), adapters=wrong)


def test_only_the_weight_changes_in_a_merged_file():
    base = edgefl.load(zoo.from_spec("mlp:64-32-10", 0))
    model = base.with_adapters(4, ["fc1"])
    saved = onnx.ModelProto.FromString(model.to_bytes(learned(model)))
    was = onnx.ModelProto.FromString(base.source)
    assert list(saved.graph.node) == list(was.graph.node)
    changed = {
        one.name
        for one, other in zip(saved.graph.initializer, was.graph.initializer, strict=True)
        if not np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
    }
    assert changed == {"fc1.weight"}


def test_a_federation_tunes_adapters(tmp_path):
    """From the settings alone; what the aggregator writes of them, and what devices get to put together."""
    from edgefl_broker.outputs import ModelFiles

    base = edgefl.load(zoo.from_spec("mlp:64-32-10", 0))
    history = edgefl.simulate(base, "digits", devices=3, rounds=3, rank=4, epochs=3, partition="iid")
    model = base.with_adapters(4)
    count = model.plan.num_trainable
    assert np.array_equal(history.params[count:], model.params[count:])
    assert history.rounds[-1].loss < history.rounds[0].loss
    x = samples(model, 4)
    for merge in (True, False):
        model = base.with_adapters(4, merge=merge)
        files = ModelFiles(tmp_path, model, "f", "0" * 16)
        files.begin()
        files.write("model.onnx", history.params, 1, 1, None)
        saved = edgefl.load(tmp_path / "model.onnx")
        assert (saved.adapters is None) == merge
        expected = predicted(model, history.params, x)
        np.testing.assert_allclose(OnnxEvaluator(saved).predict(saved.params, x), expected, atol=1e-4)
        from_device = skeleton.Skeleton.from_bytes((tmp_path / "skeleton.bin").read_bytes(), model.plan.num_params)
        assert "adapters" in from_device.header.notes


class TestTorch:
    """Attention, as PyTorch's exporters write it: each finds the same layers by their module's name."""

    pytestmark = TORCH

    @pytest.mark.parametrize("how", EXPORTS)
    def test_a_transformer_is_tuned_by_its_attention(self, tmp_path, how):
        import torch

        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        source = export(torch.nn.Sequential(torch.nn.Embedding(10, 32), layer).eval(), None, how, tmp_path)
        base = edgefl.load(source, loss="mse")
        model = base.with_adapters(rank=4, on=["*attn*"])
        assert model.adapters.sites and model.plan.num_trainable < base.plan.num_trainable / 5
        x, params = samples(model, 3), learned(model)
        assert np.array_equal(predicted(model, model.params, x), predicted(base, base.params, x))
        saved = edgefl.load(model.to_bytes(params), loss="mse")
        expected = predicted(model, params, x)
        np.testing.assert_allclose(OnnxEvaluator(saved).predict(saved.params, x), expected, rtol=1e-4, atol=1e-4)
