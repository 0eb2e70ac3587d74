"""ONNX graphs in ONNX's own text format, and what every importable one is held to."""

from __future__ import annotations

import numpy as np
import onnx
import plan_reference
from onnx import numpy_helper

import edgefl
from edgefl.onnx.evaluate import OnnxEvaluator

# Numbers and tokens in, a class and a number out.
SEVERAL = """(float[N,4] a, int64[N,2] b) => (float[N,3] kind, float[N,1] size)
    <float[6,3] E, float[10,3] W, float[10,1] V>
    { e = Gather(E, b) shape = Constant<value_ints = [-1, 6]> () f = Reshape(e, shape) c = Concat<axis = 1>(a, f)
      kind = MatMul(c, W) size = MatMul(c, V) }"""


def onnx_model(text: str, opset: int = 17, ir_version: int = 8, **arrays: np.ndarray) -> onnx.ModelProto:
    """The graph; tensors declared without values get `arrays`, or random ones."""
    domains = ", ".join(f'"{domain}": 1' for domain in ("ai.onnx.ml", "onnx.brevitas", "com.microsoft"))
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}, {domains}]>'
    proto = onnx.parser.parse_model(f"{header} g {text}")
    rng = np.random.default_rng(1)
    for info in proto.graph.value_info:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        array = arrays.get(info.name, rng.normal(size=shape).astype(np.float32))
        proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
        if ir_version < 4:
            proto.graph.input.append(info)
    del proto.graph.value_info[:]
    return proto


def from_pytorch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph as PyTorch's older exporter would have written it; "__" in names is a dot."""
    made = onnx.ModelProto.FromString(proto.SerializeToString())
    made.producer_name = "pytorch"
    for named in made.graph.initializer:
        named.name = named.name.replace("__", ".")
    for info in made.graph.input:
        info.name = info.name.replace("__", ".")
    for node in made.graph.node:
        node.input[:] = [name.replace("__", ".") for name in node.input]
        node.output[:] = [name.replace("__", ".") for name in node.output]
    return made


def samples(model: edgefl.Model, n: int, seed: int = 3) -> np.ndarray:
    """(n, *input_shape): numbers around 0, or tokens below 10."""
    rng, shape = np.random.default_rng(seed), (n, *model.plan.input_shape)
    if model.input_dtype.kind == "i":
        return rng.integers(0, 10, shape).astype(model.input_dtype)
    return rng.normal(size=shape).astype(np.float32)


def moved(model: edgefl.Model, seed: int = 2) -> np.ndarray:
    """Params (P,) as training might leave them: what trains has moved, state has not."""
    after, count = model.params.copy(), model.plan.num_trainable
    after[:count] += np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)
    return after


def again(model: edgefl.Model, file: bytes) -> edgefl.Model:
    """The file, loaded as `model` was."""
    made = model.choices
    return edgefl.load(file, loss=model.plan.loss, freeze=made.freeze, train=made.train, tie=made.tie, untie=made.untie)


def assert_computes(model: edgefl.Model, tolerance: float = 1e-5) -> edgefl.Model:
    """The plan computes what onnxruntime does: from the file as it came, and after moved params were saved into it."""
    x, after = samples(model, 3), moved(model)
    saved = again(model, model.to_bytes(after))
    assert [p.name for p in saved.plan.params] == [p.name for p in model.plan.params]
    assert model.to_bytes(model.params.copy()) == model.source
    for file, params in ((model, model.params), (saved, after)):
        expected = OnnxEvaluator(file).predict(file.params, x)
        ours = plan_reference.predict(model.plan, params, x)
        assert ours.shape == expected.shape
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * scale)
    return model


def ops(model: edgefl.Model) -> list[str]:
    return [node.op for node in model.plan.nodes]
