"""Scaling: an untrained (x - mean) * scale for each column, in front of a model.

Two ONNX nodes, Sub and Mul, read the input, and all that read the input before read their result. Mean 0 and scale 1
leave every bit of it as it is, until a profile round has told better ones (docs/scaling.md). Both are initializers, so
the compiler makes untrained params of them, and they are written back like weights: a saved file takes raw units, and
the plan, its hash and its approval stay the same whatever the values are.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ..core.columns import MEAN, MOST, SCALE, Columns, Scaling
from ..errors import UsageError
from .model import Model

CENTRED, SCALED = "edgefl.scaling.centred", "edgefl.scaling.scaled"
METADATA = "edgefl.scaling"  # key of the file's metadata


def with_scaling(model: Model) -> Model:
    """The model with a scaling in front; as it is if it has one. UsageError if its input has no columns."""
    if Scaling.of(model.plan) is not None:
        return model
    if model.adapters is not None:
        raise UsageError("the model has adapters already, and a scaling comes first: merge them, and load that file")
    if len(model.inputs) > 1:
        raise UsageError('a model with several inputs can\'t be standardized: set [features] standardize = "none"')
    columns = Columns.of(model.plan)
    if not columns.number:
        why = "reads whole numbers" if model.plan.input_dtype != "float32" else f"has more than {MOST} columns"
        raise UsageError(f'the model {why}, which can\'t be standardized: set [features] standardize = "none"')
    source = put(model.source, model.input_name, len(model.plan.input_shape), columns)
    return model.compile(source, None)


def put(source: bytes, input_name: str, axes: int, columns: Columns) -> bytes:
    """The ONNX file `source` with the identity in front of its input, whose samples have so many `axes`."""
    import onnx
    from onnx import helper, numpy_helper

    from .export import INITIALIZERS_ARE_INPUTS_BEFORE_IR

    proto = onnx.ModelProto.FromString(source)
    graph = proto.graph
    for node in graph.node:
        for at, name in enumerate(node.input):
            if name == input_name:
                node.input[at] = SCALED
    # Behind the column's axis the numbers are broadcast.
    wide = [columns.number] + [1] * (axes - 1 - columns.axis)
    for name, value in ((MEAN, 0.0), (SCALE, 1.0)):
        graph.initializer.append(numpy_helper.from_array(np.full(wide, value, np.float32), name))
        if proto.ir_version < INITIALIZERS_ARE_INPUTS_BEFORE_IR:
            graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, wide))
    first = [
        helper.make_node("Sub", [input_name, MEAN], [CENTRED], name="edgefl.scaling.sub"),
        helper.make_node("Mul", [CENTRED, SCALE], [SCALED], name="edgefl.scaling.mul"),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    told = {"columns": columns.number, "axis": columns.axis + 1, "mean": MEAN, "scale": SCALE}
    helper.set_model_props(proto, {entry.key: entry.value for entry in proto.metadata_props} | {METADATA: _json(told)})
    written: bytes = proto.SerializeToString()
    return written


def _json(told: dict[str, object]) -> str:
    return msgspec.json.encode(told).decode()
