"""Errors about a file, in words that mean something to its owner.

A node that its op's function stumbles over is held against ONNX's own description of the op. The size that stands for
an open number of samples is written as N, wherever it got into a text. Not here: what an op that is not trained needs
(unsupported.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import onnx

from .items import Const, Item, Value
from .layout import OPEN, readable

LARGE = re.compile(r"\d{10,}(\.0\b)?")


def what_is_wrong(node: onnx.NodeProto, inputs: Sequence[Item | None], opset: int) -> str:
    """Why the node can't be understood, as far as ONNX tells; and what to do."""
    return f"{_against_schema(node, opset) or _shapes(inputs)}: export the model again, or check it with onnx.checker"


def _against_schema(node: onnx.NodeProto, opset: int) -> str:
    """What of the node's inputs and attributes contradicts its op; "" for nothing, or an op that onnx does not know."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return ""
    given, least, most = len(node.input), schema.min_input, schema.max_input
    if not least <= given <= most:
        return f"it has {given} inputs, and its op takes {least if least == most else f'{least} to {most}'}"
    kinds = {attribute.name: attribute.type for attribute in node.attribute}
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in kinds:
            return f"its attribute {name!r} is missing"
        kind = str(attribute.type).rpartition(".")[2]  # INT, FLOATS and the like
        if name in kinds and kinds[name] != onnx.AttributeProto.AttributeType.Value(kind):
            return f"its attribute {name!r} is not of the kind that its op takes, {kind}"
    return ""


def _shapes(inputs: Sequence[Item | None]) -> str:
    shapes = [_shape(item) for item in inputs if item is not None]
    if not shapes:
        return "its attributes do not fit its op"
    return f"its inputs {', '.join(shapes)} and attributes do not fit one another"


def _shape(item: Item) -> str:
    if isinstance(item, Const):
        return f"{readable(item.array.shape)} {item.array.dtype}"
    return readable(item.layout.shape) if isinstance(item, Value) else "(no tensor)"


def with_samples_named(text: str) -> str:
    """The text with N for the number of samples that the file leaves open, 2N for twice as many, and so on."""

    def named(match: re.Match[str]) -> str:
        times, rest = divmod(int(match[0].removesuffix(".0")), OPEN)
        if rest > OPEN // 2:
            times, rest = times + 1, rest - OPEN
        if not 0 < times < 2**20 or abs(rest) > 16:  # other large numbers, such as powers of two
            return match[0]
        return f"{'' if times == 1 else times}N{f'{rest:+d}' if rest else ''}"

    return LARGE.sub(named, text)
