"""Helpers for one ONNX node: its names, its attributes and tensors, and the error that refuses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..errors import ModelError


def label(node: onnx.NodeProto) -> str:
    """The node's name, or that of its first output: exporters often leave names out."""
    return node.name or (node.output[0] if node.output else "")


def op_key(node: onnx.NodeProto) -> str:
    """The op's name, with its domain unless that is ONNX's own."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def describe(node: onnx.NodeProto) -> str:
    return f"node {label(node)!r} ({op_key(node)})"


def refuse(node: onnx.NodeProto, why: str) -> ModelError:
    """The error for a node that can't be trained; `why` ends with what to do."""
    return ModelError(f"{describe(node)}: {why}")


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values; strings decoded."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def to_array(tensor: onnx.TensorProto, what: str) -> np.ndarray:
    """The tensor as an array; raises ModelError if its bytes lie in another file or do not fill its shape."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:  # no path out of a model file is ever opened
        raise ModelError(f"{what} lies in another file: save the model as one file (save_as_external_data=False)")
    try:
        return np.array(numpy_helper.to_array(tensor))
    except Exception:  # which class it is depends on onnx's decoder of that type
        shape = tuple(tensor.dims)
        raise ModelError(
            f"{what} can't be read, its bytes do not fill its shape {shape}: export the model again"
        ) from None
