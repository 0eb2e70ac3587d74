"""BatchNormalization, trained from its inference form, and LayerNormalization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from ..arrange import in_memory_order, innermost
from ..items import Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from ..untrained import MEASURED

ROLES = ("scale", "bias", "mean", "var")


def batch_norm(trace: Trace, node: onnx.NodeProto, x: Item, *given_weights: Item) -> Value:
    """Training uses the batch's statistics, and the running ones are state. A frozen one computes as at inference.

    `given_weights` are scale, bias, mean and variance, as ONNX orders them.
    """
    value, given = value_of(node, x), attributes(node)
    if given.get("training_mode", 0) or any(name and trace.readers.get(name) for name in node.output[1:]):
        raise refuse(node, "it was exported in training mode: export after model.eval(), or with training=PRESERVE")
    if not value.layout.leads or not value.layout.inner or given.get("spatial", 1) != 1:
        raise refuse(node, f"it normalises {value.layout} other than by channel: export with spatial=1")
    value, _, channels = innermost(trace, node, value, [1])
    weights = []
    for slot, role, item in zip((1, 2, 3, 4), ROLES, given_weights, strict=True):
        weight = trace.weight(node, role, item, slot)
        if weight.array.shape != (channels,):
            raise refuse(node, f"its {role} has shape {weight.array.shape} for {channels} channels: check the export")
        weights.append(weight)
    epsilon, shape = given.get("epsilon", 1e-5), trace.shapes[value.number]
    if weights[3].array.min() < 0 or not epsilon > 0:
        raise refuse(node, "its variance or epsilon is negative: export the model again")
    if not (weights[0].trainable or weights[1].trainable):
        gamma, beta, middle, spread = (np.float64(weight.array) for weight in weights)
        factor = gamma / np.sqrt(spread + epsilon)
        number = value.number
        for op, constant in (("mul", factor), ("add", beta - middle * factor)):
            param = trace.constant(node, "scale" if op == "mul" else "shift", constant)
            number = trace.append(node, op, [number], shape, params=[param], ints=[0])
        trace.weighted.add(number)
    else:
        weights[2:] = [replace(weight, trainable=False, why=MEASURED) for weight in weights[2:]]
        params: list[int] = []
        for role, weight in zip(ROLES, weights, strict=True):
            params.append(trace.param(node, role, weight, layer=params[0] if params else None))
        floats = [epsilon, given.get("momentum", 0.9)]
        number = trace.append(node, "batch_norm", [value.number], shape, params=params, floats=floats)
    return Value(number, value.layout, node.output[0])


def layer_norm(trace: Trace, node: onnx.NodeProto, x: Item, scale: Item, shift: Item | None = None) -> Value:
    """Over the axes from `axis` on, which the plan has as one axis."""
    value, given = value_of(node, x), attributes(node)
    rank = len(value.layout.axes)
    axes = range(given.get("axis", -1) % rank, rank)
    if any(name and trace.readers.get(name) for name in node.output[1:]):
        raise refuse(node, "its mean or deviation is read: use its first output alone")
    value, block, size = innermost(trace, node, value, axes)
    params = []
    for slot, role, item in ((1, "scale", scale), (2, "bias", shift)):
        if item is None:
            params.append(trace.constant(node, role, np.zeros(size)))
            continue
        weight = trace.weight(node, role, item, slot)
        if weight.array.size != size:
            raise refuse(node, f"its {role} has shape {weight.array.shape} for {size} numbers: give each its own")
        held = weight.map(lambda array: array.ravel()[in_memory_order(block)])
        params.append(trace.param(node, role, held, layer=params[0] if params else None))
    floats = [given.get("epsilon", 1e-5)]
    shape = trace.shapes[value.number]
    number = trace.append(node, "layer_norm", [value.number], shape, params=params, floats=floats)
    return Value(number, value.layout, node.output[0])


NORM_OPS: dict[str, Handler] = {
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
}
