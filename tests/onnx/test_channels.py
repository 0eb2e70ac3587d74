"""Weights of which only some input channels are trained: what moves, what the file has, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx_files import onnx_model

import edgefl
from edgefl.core.mask import Mask, unchanging
from edgefl.core.plan import Plan
from edgefl.errors import UsageError
from edgefl.onnx import skeleton
from edgefl.onnx.channels import can_part, split
from edgefl.onnx.evaluate import OnnxEvaluator
from edgefl.onnx.sparse import choose

CHANNELS = {"w1": [0, 3, 4], "w2": [1, 70], "wide": [2, 5]}
WEIGHTS = {
    "w0": (6, 3, 3, 3), "b0": (6,), "w1": (80, 6, 3, 3), "b1": (80,), "w2": (6, 80, 1, 1), "each": (6, 1, 3, 3),
    "wide": (6, 20), "offset": (20,), "head": (20, 4),
}  # fmt: skip


def net(ir_version=10) -> bytes:
    """Convolutions, one of them with weights for each channel, a product that is added to, and a narrow last layer."""
    body = """
        c0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
        r0 = Relu(c0)
        c1 = Conv<pads=[1,1,1,1]>(r0, w1, b1)
        r1 = Relu(c1)
        c2 = Conv(r1, w2)
        d = Conv<group=6, pads=[1,1,1,1]>(c2, each)
        s = Add(d, r0)
        p = GlobalAveragePool(s)
        f = Flatten(p)
        m = MatMul(f, wide)
        a = Add(m, offset)
        t = Tanh(a)
        y = MatMul(t, head)
    """
    rng = np.random.default_rng(3)
    arrays = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in WEIGHTS.items()}
    kinds = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in WEIGHTS.items())
    proto = onnx_model(f"(float[n,3,8,8] x) => (float[n,4] y) <{kinds}> {{ {body} }}", **arrays)
    return proto.SerializeToString()


@pytest.fixture(scope="module")
def whole():
    return edgefl.load(net(), loss="cross_entropy")


@pytest.fixture(scope="module")
def parted():
    return edgefl.load(net(), loss="cross_entropy", channels=CHANNELS)


def examples(n=24):
    rng = np.random.default_rng(5)
    return rng.normal(size=(n, 3, 8, 8)).astype(np.float32), rng.integers(0, 4, n)


def by_name(model, vector):
    ends = np.cumsum([param.size for param in model.plan.params])
    return {
        p.name: part.reshape(p.shape) for p, part in zip(model.plan.params, np.split(vector, ends[:-1]), strict=True)
    }


def stored(source):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(source).graph.initializer}


def channel_axis(name):
    return 0 if name == "wide" else 1


def moved(model, momentum=0.0):
    x, y = examples()
    return (
        model.params
        + edgefl.Trainer(model.plan)
        .fit(model.params, x, y, epochs=3, batch_size=8, lr=0.05, momentum=momentum, weight_decay=1e-3)
        .delta
    )


def test_gradients_are_slices_of_full_trainings(whole, parted):
    x, y = examples()
    full = by_name(whole, edgefl.Trainer(whole.plan).gradient(whole.params, x, y))
    some = by_name(parted, edgefl.Trainer(parted.plan).gradient(parted.params, x, y))
    for name, gradient in full.items():
        expected = gradient[..., CHANNELS[name], :] if name in CHANNELS else gradient
        np.testing.assert_allclose(some[name], expected, atol=1e-6)
    assert {name for name in some if name not in full} == {f"{name}.frozen" for name in CHANNELS}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_frozen_channels_keep_their_bits(parted, momentum):
    saved, before = stored(parted.to_bytes(moved(parted, momentum))), stored(net())
    assert saved.keys() == before.keys()
    for name, channels in CHANNELS.items():
        others = np.setdiff1d(np.arange(before[name].shape[channel_axis(name)]), channels)
        for some, same in ((others, True), (channels, False)):
            new, old = (np.take(tensors[name], some, channel_axis(name)) for tensors in (saved, before))
            assert (new.view(np.uint32) == old.view(np.uint32)).all() == same
    assert all((saved[name] != before[name]).any() for name in WEIGHTS)


def test_the_saved_file_computes_in_onnxruntime_what_the_core_does(parted):
    params, (x, y) = moved(parted), examples()
    session = onnxruntime.InferenceSession(parted.to_bytes(params), providers=["CPUExecutionProvider"])
    got = edgefl.Trainer(parted.plan).predict(params, x)
    np.testing.assert_allclose(got, session.run(None, {"x": x})[0], atol=2e-5)
    ours, theirs = edgefl.Trainer(parted.plan).evaluate(params, x, y), OnnxEvaluator(parted).evaluate(params, x, y)
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)


def test_before_training_nothing_differs(whole, parted):
    x, _ = examples()
    assert parted.to_bytes(parted.params) == net()
    np.testing.assert_allclose(
        edgefl.Trainer(parted.plan).predict(parted.params, x),
        edgefl.Trainer(whole.plan).predict(whole.params, x),
        atol=1e-6,
    )
    assert sorted(parted.params) == sorted(whole.params)


def test_a_file_that_was_saved_is_read_again(parted):
    params = moved(parted)
    again = edgefl.load(parted.to_bytes(params), loss="cross_entropy", channels=CHANNELS)
    assert again.plan == parted.plan
    np.testing.assert_array_equal(again.params, params)


def test_updates_lack_what_is_frozen(parted, whole):
    frozen = sum(p.size for p in parted.plan.params if not p.trainable)
    assert parted.plan.num_params == whole.plan.num_params
    assert parted.plan.num_trainable == whole.plan.num_trainable - frozen
    base = unchanging(parted.plan)
    assert base == [] or Mask(parted.plan, base=base).num_shared == parted.plan.num_trainable
    assert Plan.from_bytes(parted.plan.to_bytes()).hash == parted.plan.hash != whole.plan.hash


def test_devices_files_are_put_together_from_a_skeleton(parted):
    params = moved(parted)
    made = skeleton.make(parted)
    found = stored(b"".join(made.pieces(params)))
    for name, expected in stored(parted.to_bytes(params)).items():
        np.testing.assert_array_equal(found[name], expected)


def test_a_file_in_several_forms(tmp_path):
    """A weight that Gemm reads transposed, and one that is scaled by alpha."""
    text = """(float[n,5] x) => (float[n,3] y) <float[7,5] w, float[7] b, float[7,20] v, float[20,3] head>
        { g = Gemm<transB=1, alpha=0.5>(x, w, b)
          t = Tanh(g)
          h = Gemm(t, v)
          r = Relu(h)
          y = MatMul(r, head) }"""
    rng = np.random.default_rng(0)
    arrays = {"w": (7, 5), "v": (7, 20), "head": (20, 3)}
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in arrays.items()}
    source = onnx_model(text, **arrays).SerializeToString()
    model = edgefl.load(source, loss="cross_entropy", channels={"v": [6, 2]})
    x, y = rng.normal(size=(9, 5)).astype(np.float32), rng.integers(0, 3, 9)
    params = model.params + edgefl.Trainer(model.plan).fit(model.params, x, y, lr=0.1).delta
    saved = stored(model.to_bytes(params))
    rows = (saved["v"] != arrays["v"]).any(1)
    assert rows.tolist() == [False, False, True, False, False, False, True]
    session = onnxruntime.InferenceSession(model.to_bytes(params), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(edgefl.Trainer(model.plan).predict(params, x), session.run(None, {"x": x})[0], atol=1e-5)


def test_what_can_be_taken_apart(whole, parted):
    assert {whole.plan.params[index].name: count for index, count in can_part(whole.plan).items()} == {
        "w1": 6, "w2": 80, "wide": 6,
    }  # fmt: skip
    assert not can_part(parted.plan)


@pytest.mark.parametrize(
    "channels,why",
    [
        ({"w9": [0]}, "'w9', which no weight is called"),
        ({"w0": [0]}, "'w0', which is frozen, shared"),  # the first convolution
        ({"each": [0]}, "'each', which is frozen, shared"),
        ({"head": [0]}, "'head', which is frozen, shared"),
        ({"b0": [0]}, "'b0', which is frozen, shared"),
        ({"w1": []}, "name some of 0 to 5"),
        ({"w1": [6]}, "name some of 0 to 5"),
        ({"w1": [-1]}, "name some of 0 to 5"),
    ],
)
def test_what_is_refused(channels, why):
    with pytest.raises(UsageError, match=why):
        edgefl.load(net(), loss="cross_entropy", channels=channels)


def test_a_frozen_weight_is_refused():
    with pytest.raises(UsageError, match="'w1', which is frozen"):
        edgefl.load(net(), loss="cross_entropy", freeze=["w1"], channels={"w1": [0]})


def test_adapters_and_a_second_choice_are_refused(parted):
    with pytest.raises(UsageError, match="leave channels out, or adapters"):
        parted.with_adapters(rank=1)
    with pytest.raises(UsageError, match="leave channels out"):
        edgefl.load(net(), loss="cross_entropy", adapters={"rank": 1, "on": ["wide"]}, channels={"w1": [0]})
    with pytest.raises(UsageError, match="load it without channels"):
        choose(parted, 10**9)


def test_all_channels_are_the_whole_weight(whole):
    model = edgefl.load(net(), loss="cross_entropy", channels={"w1": range(6)})
    assert model.plan == whole.plan


def test_the_scaling_of_columns_stays_in_front(parted):
    model = edgefl.load(net(), loss="cross_entropy", standardize=True, channels=CHANNELS)
    assert [node.op for node in model.plan.nodes[:2]] == ["sub", "mul"]
    assert sum(node.op == "conv_part" for node in model.plan.nodes) == len(CHANNELS)


def test_parts_of_a_copy_stay_apart_in_a_changed_file(whole):
    at = next(at for at, param in enumerate(whole.plan.params) if param.name == "w1")
    bindings = [replace(binding, apart=at == number) for number, binding in enumerate(whole.bindings)]
    made = split(replace(whole, bindings=bindings), {"w1": [0, 2]})
    parts = [binding for param, binding in zip(made.plan.params, made.bindings, strict=True) if "w1" in param.name]
    assert [(part.apart, part.named) for part in parts] == [(True, bindings[at].named)] * 2
