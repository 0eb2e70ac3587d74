"""One sample without an axis of its own: a file whose input is (features,), or (channels, height, width).

Its tensors have a layout without samples. Ops on images and sequences need the axis of one that ONNX wants there: they
get the sample in that axis, and what they make is without it again.
"""

from __future__ import annotations

from dataclasses import replace

import onnx

from .items import Item, Readout, Value
from .nodes import attributes

SEQUENCES = ("GRU", "LSTM", "RNN")  # (steps, samples, features), or the samples first with layout=1
FIRST = (
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalMaxPool",
    "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "MaxPool", "Resize", "SpaceToDepth", "Upsample",
)  # fmt: skip


def given(node: onnx.NodeProto, item: Item | None) -> Item | None:
    """An input as this node needs it."""
    if not isinstance(item, Value):
        return item
    if node.op_type in FIRST:
        return replace(item, layout=item.layout.homed(0))
    if node.op_type in SEQUENCES:
        return replace(item, layout=item.layout.homed(0 if attributes(node).get("layout", 0) else 1))
    return item


def made(item: Item) -> Item:
    """An output as all other nodes read it."""
    if isinstance(item, Readout):
        return Readout(replace(item.value, layout=item.value.layout.released()))
    return replace(item, layout=item.layout.released()) if isinstance(item, Value) else item
