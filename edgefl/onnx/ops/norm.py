"""BatchNormalization, trained from its inference form, LayerNormalization and RMSNormalization. What goes by groups is
in group_norm.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from ..arrange import in_memory_order, innermost
from ..items import Const, Handler, Item, Value, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from ..untrained import GRAPH, MEASURED
from .arithmetic import calculate, with_constant
from .reduce import pointwise, reduced

ROLES = ("scale", "bias", "mean", "var")
MADE_UP = ("val_", "onnx::")  # how torch names what is no parameter of the net


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


def layer_norm(
    trace: Trace,
    node: onnx.NodeProto,
    x: Item,
    scale: Item | None,
    shift: Item | None = None,
    *,
    slots: tuple[int, int] = (1, 2),
    epsilon: float = 1e-5,
) -> Value:
    """Over the axes from `axis` on, which the plan has as one axis. `slots` are the inputs that scale and shift are."""
    value, given = value_of(node, x), attributes(node)
    rank = len(value.layout.axes)
    axes = range(given.get("axis", -1) % rank, rank)
    if any(name and trace.readers.get(name) for name in node.output[1:]):
        raise refuse(node, "its mean or deviation is read: use its first output alone")
    value, block, size = innermost(trace, node, value, axes)
    both = (("scale", scale), ("bias", shift))
    wanted = [isinstance(item, Const) and trace.wants(item, node, role) for role, item in both]
    params, plain = [], is_plain(trace, scale, shift) and not any(wanted)
    for slot, (role, item) in zip(slots, both, strict=True):
        if plain or (item is None and role == "bias"):
            why = GRAPH if isinstance(item, Const) and item.where is not None and not trace.is_initializer(item) else ""
            params.append(trace.constant(node, role, np.full(size, float(plain and role == "scale")), why))
            continue
        weight = trace.weight(node, role, item, slot)
        if weight.array.size != size:
            raise refuse(node, f"its {role} has shape {weight.array.shape} for {size} numbers: give each its own")
        held = weight.map(lambda array: array.ravel()[in_memory_order(block)])
        params.append(trace.param(node, role, held, layer=params[0] if params else None))
    floats = [given.get("epsilon", epsilon)]
    shape = trace.shapes[value.number]
    number = trace.append(node, "layer_norm", [value.number], shape, params=params, floats=floats)
    return Value(number, value.layout, node.output[0])


def is_plain(trace: Trace, scale: Item | None, shift: Item | None) -> bool:
    """Whether an exporter has made up ones and zeros for a normalization without weights. Those of a net that is not
    trained yet are initializers with names of their own."""
    for item, number in ((scale, 1), (shift, 0)):
        if item is None:
            continue
        if not isinstance(item, Const) or not (item.array == number).all():
            return False
        if trace.is_initializer(item) and not item.name.startswith(MADE_UP):
            return False
    return True


def rms_norm(
    trace: Trace, node: onnx.NodeProto, x: Item, scale: Item | None, *, slot: int = 1, epsilon: float = 1e-5
) -> Value:
    """x / sqrt(mean(x x) + epsilon) scale, over the axes from `axis` on."""
    value, given = value_of(node, x), attributes(node)
    rank = len(value.layout.axes)
    axes = range(given.get("axis", -1) % rank, rank)
    square = reduced(trace, node, "mean", calculate(trace, node, "mul", value, value), axes, keep=True)
    square = calculate(trace, node, "add", square, Const(np.array(given.get("epsilon", epsilon), np.float32)))
    unit = calculate(trace, node, "div", value, pointwise(trace, node, "sqrt", square))
    if not isinstance(scale, Const):
        return calculate(trace, node, "mul", unit, value_of(node, scale))
    return with_constant(trace, node, "mul", unit, scale, slot=slot)


NORM_OPS: dict[str, Handler] = {
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "SimplifiedLayerNormalization": rms_norm,
}
