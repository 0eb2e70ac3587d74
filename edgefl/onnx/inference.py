"""A file that was exported in training mode, in the form in which it predicts.

In training mode a BatchNormalization uses the batch's statistics and a Dropout draws, so that no two runs of the file
give the same. EdgeFL trains both by rules of its own, and hands back a file that predicts. Only attributes, inputs and
outputs of these nodes change: nodes and initializers keep their numbers.
"""

from __future__ import annotations

import onnx

from ..errors import ModelError
from .graph import readers_of
from .nodes import op_key, to_array


def in_inference_form(proto: onnx.ModelProto, source: bytes) -> bytes:
    """The file's bytes; `proto`, which is read from `source`, is changed in place. What other nodes read of a node's
    training is left as it is, and refused later."""
    readers = readers_of(proto.graph, list(range(len(proto.graph.node))))
    changed = False
    for node in proto.graph.node:
        if any(name and readers.get(name) for name in node.output[1:]):
            continue
        if op_key(node) == "BatchNormalization":
            changed |= _batch_norm(node)
        elif op_key(node) == "Dropout" and len(node.input) > 2 and _is_true(proto.graph, node.input[2]):
            del node.input[2:]
            changed = True
    return proto.SerializeToString() if changed else source


def _batch_norm(node: onnx.NodeProto) -> bool:
    """Up to opset 13 further outputs mean training, since then an attribute does."""
    if len(node.output) == 1 and not any(
        attribute.name == "training_mode" and attribute.i for attribute in node.attribute
    ):
        return False
    kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
    del node.attribute[:]
    node.attribute.extend(kept)
    del node.output[1:]
    return True


def _is_true(graph: onnx.GraphProto, name: str) -> bool:
    """Whether it is a constant that says True."""
    found = next((tensor for tensor in graph.initializer if tensor.name == name), None)
    if found is None:
        maker = next((node for node in graph.node if name in node.output and node.op_type == "Constant"), None)
        found = maker and next((attribute.t for attribute in maker.attribute if attribute.name == "value"), None)
    if not found or found.data_type != onnx.TensorProto.BOOL:
        return False
    try:
        return bool(to_array(found, name).all())
    except ModelError:  # which the compiler will raise where the tensor matters
        return False
