"""The scaling in front of a model: the identity until it is set, in raw units, and of no consequence for the plan."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgefl
from edgefl.core.columns import Columns, Scaling
from edgefl.core.protobuf import without_stamp
from edgefl.core.trainer import Trainer
from edgefl.errors import UsageError
from edgefl.onnx import skeleton, zoo
from edgefl.onnx.model import Model
from edgefl.onnx.scaling import METADATA, with_scaling

RNG = np.random.default_rng(5)


def mlp(features: int = 6) -> Model:
    return edgefl.load(zoo.from_spec(f"mlp:{features}-8-3", 1))


def conv(shape: tuple[int, ...], *, channels_last: bool = False) -> Model:
    """A convolution over the last axis but for channels, then a dense layer."""
    channels, length = (shape[1], shape[0]) if channels_last else shape
    weight = RNG.normal(size=(4, channels, 3)).astype(np.float32) / 3
    dense = RNG.normal(size=(4 * (length - 2), 3)).astype(np.float32) / 9
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1])] if channels_last else []
    nodes += [
        helper.make_node("Conv", ["t" if channels_last else "x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "conv", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(dense, "d")],
    )  # fmt: skip
    return edgefl.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


MODELS = {
    "table": (mlp, 0, 6),
    "one column": (lambda: mlp(1), 0, 1),
    "channels first": (lambda: conv((5, 20)), 0, 5),
    "channels last": (lambda: conv((20, 5), channels_last=True), 1, 5),
}


@pytest.mark.parametrize("name", MODELS)
def test_raw_units_in_onnxruntime_and_in_the_core(name: str) -> None:
    make, axis, count = MODELS[name]
    plain = make()
    model = with_scaling(plain)
    assert Columns.of(model.plan) == Columns.of(plain.plan) == (axis, count)
    scaling = Scaling.of(model.plan)
    assert scaling is not None and scaling.is_identity(model.params)

    mean, deviation = 10.0 ** np.arange(count), 10.0 ** (np.arange(count) - 2)  # columns that differ by 1e5
    along = [1] * len(model.plan.input_shape)
    along[axis] = count
    x = RNG.normal(size=(40, *model.plan.input_shape)) * deviation.reshape(along) + mean.reshape(along)
    raw = x.astype(np.float32)

    identity = Trainer(model.plan).predict(model.params, raw)
    assert np.array_equal(identity, Trainer(plain.plan).predict(plain.params, raw)), "not a bit is changed"

    params = scaling.into(model.params, mean, 1 / deviation)
    ours = Trainer(model.plan).predict(params, raw)
    standard = (raw - mean.reshape(along).astype(np.float32)) * (1 / deviation).reshape(along).astype(np.float32)
    assert np.allclose(ours, Trainer(plain.plan).predict(plain.params, standard), atol=1e-5)

    session = onnxruntime.InferenceSession(model.to_bytes(params))
    theirs = session.run(None, {model.input_name: raw})[0]
    shown = Trainer(edgefl.load(model.to_bytes(params), loss="mse").plan)
    assert np.allclose(theirs, shown.predict(edgefl.load(model.to_bytes(params), loss="mse").params, raw), atol=1e-5)
    if name in ("channels first", "channels last"):  # their file ends in logits
        assert np.allclose(theirs, shown.predict(params, raw), atol=1e-5)


def test_values_change_neither_the_plan_nor_what_is_trained() -> None:
    plain, model = mlp(), with_scaling(mlp())
    scaling = Scaling.of(model.plan)
    assert scaling is not None
    params = scaling.into(model.params, np.arange(6), np.full(6, 0.5))
    again = edgefl.load(model.to_bytes(params))
    assert again.plan.hash == model.plan.hash != plain.plan.hash
    assert np.array_equal(again.params, params) and not scaling.is_identity(again.params)
    assert model.plan.num_trainable == plain.plan.num_trainable
    assert with_scaling(again) is again, "a file that has a scaling gets no second one"

    x, y = RNG.normal(size=(30, 6)).astype(np.float32), RNG.integers(0, 3, 30)
    delta = Trainer(model.plan).fit(params, x, y, epochs=2).delta
    assert delta[: model.plan.num_trainable].any() and not delta[model.plan.num_trainable :].any()


def test_scaling_is_kept_whatever_updates_say() -> None:
    model = with_scaling(mlp())
    scaling = Scaling.of(model.plan)
    assert scaling is not None
    spoilt = model.params + np.float32(1)
    kept = scaling.keep(spoilt, model.params)
    assert scaling.is_identity(kept) and np.array_equal(kept[: scaling.mean.start], spoilt[: scaling.mean.start])


def test_metadata_names_the_initializers() -> None:
    proto = onnx.ModelProto.FromString(with_scaling(mlp()).source)
    told = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == METADATA))
    assert told["columns"] == 6 and told["axis"] == 1
    assert {told["mean"], told["scale"]} <= {tensor.name for tensor in proto.graph.initializer}
    onnx.checker.check_model(proto)


def test_what_the_loader_was_told_holds_for_the_scaled_model_too() -> None:
    source = zoo.from_spec("mlp:6-8-3", 1)
    first = edgefl.load(source).plan.params[0].name
    plain = edgefl.load(source, loss="focal", freeze=[first])
    scaled = with_scaling(plain)
    assert scaled.plan.loss == "focal"
    assert scaled.plan.num_trainable == plain.plan.num_trainable < edgefl.load(source).plan.num_trainable


def test_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="whole numbers"):
        with_scaling(_tokens())


def _tokens() -> Model:
    table = RNG.normal(size=(7, 4)).astype(np.float32)
    dense = RNG.normal(size=(20, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["e", "x"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "tokens", [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(table, "e"), numpy_helper.from_array(dense, "d")],
    )  # fmt: skip
    return edgefl.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.mark.parametrize("name", MODELS)
def test_a_device_puts_the_scaled_file_together(name: str) -> None:
    """From a skeleton and params, without onnx: the very bytes that the aggregator writes."""
    model = with_scaling(MODELS[name][0]())
    scaling = Scaling.of(model.plan)
    assert scaling is not None
    params = scaling.into(model.params, np.full(MODELS[name][2], 7), np.full(MODELS[name][2], 0.25))
    made = skeleton.make(model)
    assert b"".join(made.pieces(params)) == without_stamp(model.to_bytes(params))
