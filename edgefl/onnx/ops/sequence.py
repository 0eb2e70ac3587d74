"""Sequences of tensors, which PyTorch's newer exporter writes for `split` and `chunk` unless it optimizes."""

from __future__ import annotations

from dataclasses import replace

import onnx

from ..items import Const, Handler, Item, Parts, Value
from ..nodes import attributes, refuse
from ..trace import Trace
from .shape import pieces


def split_to_sequence(trace: Trace, node: onnx.NodeProto, x: Item, sizes: Item | None = None) -> Parts:
    """`sizes` is one size for each part, or one number for all of them."""
    given = attributes(node)
    if not isinstance(x, Value) or not isinstance(sizes, Const) or not given.get("keepdims", 1):
        raise refuse(node, "it splits other than by fixed sizes: split into parts of known size")
    axis = given.get("axis", 0)
    whole, parts = x.layout.shape[axis], [int(size) for size in sizes.array.ravel()]
    if sizes.array.ndim == 0 and parts[0] > 0:
        parts = [min(parts[0], whole - start) for start in range(0, whole, parts[0])]
    return Parts(tuple(pieces(trace, node, x, axis, parts)))


def sequence_at(trace: Trace, node: onnx.NodeProto, sequence: Item, position: Item) -> Item:
    if not isinstance(sequence, Parts) or not isinstance(position, Const):
        raise refuse(node, "its place is computed from the input: use a fixed one")
    at, count = int(position.array.ravel()[0]), len(sequence.items)
    if not -count <= at < count:
        raise refuse(node, f"there is no part {at} of {count}: check the export")
    return replace(sequence.items[at], tensor=node.output[0])


SEQUENCE_OPS: dict[str, Handler] = {
    "SequenceAt": sequence_at,
    "SplitToSequence": split_to_sequence,
}
