"""ONNX out: the same file with trained values in it, and nothing else changed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_files import from_pytorch

import edgefl
from edgefl.errors import ModelError
from edgefl.onnx.evaluate import OnnxEvaluator

TWICE = "(float[N,4] x) => (float[N,4] y) <float[4,4] W, float[4] B> {{ {} }}"
COPIED = "(float[N,4] x) => (float[N,4] y) <float[4,4] a__W, float[4] a__B> {{ {} }}"
READ_TWICE = TWICE.format("h = Gemm(x, W, B) r = Relu(h) y = Gemm(r, W, B)")
READ_THROUGH_IDENTITY = COPIED.format(
    "b__W = Identity(a__W) b__B = Identity(a__B) h = Gemm(x, a__W, a__B) r = Relu(h) y = Gemm(r, b__W, b__B)"
)
MERGED_AND_TWICE = COPIED.format(  # the first layer twice, then another that began equal
    "b__W = Identity(a__W) b__B = Identity(a__B) h = Gemm(x, a__W, a__B) r = Relu(h) k = Gemm(r, a__W, a__B)"
    " s = Relu(k) l = Gemm(s, b__W, b__B) t = Relu(l) y = Gemm(t, b__W, b__B)"
)


def onnx_model(text: str, ir_version: int = 8) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["": 9]> g {text}')
    rng = np.random.default_rng(1)
    for info in proto.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        values = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, info.name))
        if ir_version < 4:
            proto.graph.input.append(info)
    del proto.graph.value_info[:]
    return proto


def initializers(data: bytes) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.ModelProto.FromString(data).graph.initializer}


def assert_saves_what_it_trained(model: edgefl.Model, params: np.ndarray) -> bytes:
    """The saved file computes in onnxruntime what the trainer computes from `params`."""
    saved = model.to_bytes(params)
    x = np.random.default_rng(3).normal(size=(5, *model.plan.input_shape)).astype(np.float32)
    reloaded = edgefl.load(saved, loss=model.plan.loss)
    expected = edgefl.Trainer(model.plan).predict(params, x)
    np.testing.assert_allclose(OnnxEvaluator(reloaded).predict(reloaded.params, x), expected, rtol=1e-5, atol=1e-5)
    return saved


def test_untrained_file_keeps_every_byte():
    source = onnx_model(READ_TWICE).SerializeToString()
    model = edgefl.load(source)
    assert model.to_bytes() == source
    assert model.to_bytes(model.params.copy()) == source


def test_only_trained_elements_change():
    model = edgefl.load(
        onnx_model(
            "(float[N,4] x) => (float[N,3] y) <float[4,3] W, float[3] B>{ y = Gemm<alpha=0.3, beta=0.7>(x, W, B) }"
        )
    )
    params = model.params.copy()
    params[5] += 1
    before, after = initializers(model.source), initializers(model.to_bytes(params))
    assert np.flatnonzero(before["W"] != after["W"]).tolist() == [5]
    assert before["B"].tobytes() == after["B"].tobytes()


@pytest.mark.parametrize("text", [READ_THROUGH_IDENTITY, MERGED_AND_TWICE])
@pytest.mark.parametrize("ir_version", [3, 8])
def test_merged_initializer_is_split_once_its_layers_differ(text, ir_version):
    model = edgefl.load(from_pytorch(onnx_model(text, ir_version)))
    assert model.plan.num_params == 40
    params = model.params + np.random.default_rng(2).normal(size=model.params.size).astype(np.float32)
    saved = assert_saves_what_it_trained(model, params)
    onnx.checker.check_model(saved)
    tensors = initializers(saved)
    assert sorted(tensors) == ["a.B", "a.B.2", "a.W", "a.W.2"]
    assert (tensors["a.W"].ravel() == params[:16]).all()


@pytest.mark.parametrize("ir_version", [3, 8])
def test_initializer_of_a_layer_used_twice_is_one_param_and_stays_one(ir_version):
    model = edgefl.load(onnx_model(READ_TWICE, ir_version))
    params = model.params + np.arange(20, dtype=np.float32)
    tensors = initializers(assert_saves_what_it_trained(model, params))
    assert sorted(tensors) == ["B", "W"]
    assert np.concatenate([tensors["W"].ravel(), tensors["B"]]).tolist() == params.tolist()


def test_copied_layers_that_moved_alike_are_written_apart():
    """Or the file would not tell that they are two."""
    model = edgefl.load(from_pytorch(onnx_model(READ_THROUGH_IDENTITY)))
    params = model.params.reshape(2, 20) + np.arange(20, dtype=np.float32)
    saved = assert_saves_what_it_trained(model, params.ravel())
    assert sorted(initializers(saved)) == ["a.B", "a.B.2", "a.W", "a.W.2"]
    assert edgefl.load(saved).plan == model.plan


def test_untied_tensor_that_stayed_equal_stays_one():
    model = edgefl.load(onnx_model(READ_TWICE), untie=["W", "B"])
    params = model.params.reshape(2, 20) + np.arange(20, dtype=np.float32)
    saved = model.to_bytes(params.ravel())
    assert sorted(initializers(saved)) == ["B", "W"]
    assert (edgefl.load(saved, untie=["W", "B"]).params == params.ravel()).all()


def test_untied_tensor_is_split_even_if_the_first_reader_did_not_move():
    model = edgefl.load(onnx_model(READ_TWICE), untie=["W", "B"])
    params = model.params.copy()
    params[20:36] += 1
    tensors = initializers(assert_saves_what_it_trained(model, params))
    assert (tensors["W"].ravel() == params[:16]).all()
    assert (tensors["W.2"].ravel() == params[20:36]).all()
    assert "B.2" not in tensors


def test_float_data_stays_float_data():
    proto = onnx_model(READ_TWICE)
    w = proto.graph.initializer[0]
    proto.graph.initializer[0].CopyFrom(
        helper.make_tensor("W", onnx.TensorProto.FLOAT, w.dims, numpy_helper.to_array(w).ravel())
    )
    model = edgefl.load(proto)
    saved = onnx.ModelProto.FromString(assert_saves_what_it_trained(model, model.params + 1))
    assert len(saved.graph.initializer[0].float_data) == 16
    assert not saved.graph.initializer[0].raw_data


@pytest.mark.parametrize("value", ["value = float[2,1] {1,2}", "value_floats = [1.0, 2.0]"])
def test_constant_nodes_are_written_back(value):
    shape = "S = Constant<value = int64[2] {2,1}>() V = Reshape(W, S)"
    model = edgefl.load(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 13]> g (float[N,2] x) => (float[N,1] y)'
            f"{{ W = Constant<{value}>() b = Constant<value_float = 0.5>() Z = Constant<value = int64[1] {{0}}>()"
            f" {shape} c = Unsqueeze(b, Z) h = MatMul(x, V) y = Add(h, c) }}"
        )
    )
    assert model.params.tolist() == [1, 2, 0.5]
    saved = assert_saves_what_it_trained(model, np.array([3, 4, 5], np.float32))
    assert edgefl.load(saved).params.tolist() == [3, 4, 5]


def test_everything_but_the_values_is_kept():
    proto = onnx_model(READ_TWICE)
    proto.doc_string, proto.producer_name = "kept", "exporter"
    proto.metadata_props.add(key="author", value="kept too")
    model = edgefl.load(proto)
    saved = onnx.ModelProto.FromString(model.to_bytes(model.params + 1))
    del saved.graph.initializer[:], proto.graph.initializer[:]
    assert saved == proto


@pytest.mark.parametrize(
    ("params", "why"),
    [
        (np.zeros(19, np.float32), r"params have shape \(19,\), the model \(20,\)"),
        (np.full(20, np.nan, np.float32), "NaN"),
    ],
)
def test_params_that_do_not_fit_are_refused(params, why):
    with pytest.raises(ModelError, match=why):
        edgefl.load(onnx_model(READ_TWICE)).to_bytes(params)


def test_save_replaces_the_file_whole(tmp_path):
    model = edgefl.load(onnx_model(READ_TWICE))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")
    model.save(path, model.params + 1)
    assert edgefl.load(path).plan.num_params == 20
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    model = edgefl.load(onnx_model(READ_TWICE))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(ModelError, match="No space left"):
        model.save(path)
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_save_into_a_missing_folder_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"can't save .*: No such file"):
        edgefl.load(onnx_model(READ_TWICE)).save(tmp_path / "nowhere" / "model.onnx")
