"""scikit-learn's linear models, as skl2onnx writes them: ops of ai.onnx.ml that keep the weights in attributes.

Specification: https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from ..items import Const, Handler, Item, Readout, Value, Weight, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import calculate
from .dense import dense


def linear_regressor(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    given = attributes(node)
    if given.get("post_transform", "NONE") != "NONE":
        raise refuse(node, f"post_transform={given['post_transform']} is not trained yet: export without it")
    value, rows, intercepts = _linear(trace, node, x, given.get("targets", 1))
    result = _dense(trace, node, value, rows, intercepts)
    trace.drafts[-1].loss = "mse"
    return result


def linear_classifier(trace: Trace, node: onnx.NodeProto, x: Item) -> tuple[Item, Item]:
    """(label, scores). Two mirrored rows, as a binary LogisticRegression has them, are one logit."""
    given = attributes(node)
    classes = len(given.get("classlabels_ints", ()) or given.get("classlabels_strings", ()))
    value, rows, intercepts = _linear(trace, node, x, len(given.get("intercepts", ())) or classes)
    count, transform = rows.array.shape[0], given.get("post_transform", "NONE")
    if transform == "LOGISTIC" and count <= 2 and classes == 2:
        logit = _binary_logit(trace, node, value, rows, intercepts)
        scores = _activated(trace, node, "sigmoid", logit)
    elif transform in ("SOFTMAX", "NONE") and count == classes >= 2:
        scores = replace(_dense(trace, node, value, rows, intercepts), tensor=node.output[1])
        if transform == "SOFTMAX":
            scores = _activated(trace, node, "softmax", scores)
    else:
        why = f"post_transform={transform} over {count} rows for {classes} classes is not trained yet"
        raise refuse(node, f"{why}: use a multinomial (softmax) LogisticRegression")
    return Readout(scores), scores


def _activated(trace: Trace, node: onnx.NodeProto, op: str, value: Value) -> Value:
    number = trace.append(node, op, [value.number], trace.shapes[value.number])
    return replace(value, number=number, tensor=node.output[1])


def _binary_logit(trace: Trace, node: onnx.NodeProto, value: Value, rows: Weight, intercepts: Weight | None) -> Value:
    """The logit of the second class: the last row, with the first kept as its mirror image."""
    mirrors = []
    for both in filter(None, (rows, intercepts)):
        mirrored = both.array.shape[0] == 2
        if mirrored and (both.array[0] != -both.array[1]).any():
            raise refuse(node, "its two rows are no mirror images: refit with one logit, or with softmax")
        mirrors.append(both.where[0] if mirrored else None)
    bias = None if intercepts is None else intercepts.map(lambda a: a[-1:])
    return _dense(trace, node, value, rows.map(lambda a: a[-1:]), bias, mirrors=mirrors)


def _dense(
    trace: Trace,
    node: onnx.NodeProto,
    value: Value,
    rows: Weight,
    intercepts: Weight | None = None,
    *,
    mirrors: Sequence[np.ndarray | None] = (None, None),
) -> Value:
    logits = dense(trace, node, value, rows.map(np.transpose), mirror=mirrors[0])
    if intercepts is not None:
        trace.drafts[-1].params.append(
            trace.param(node, "bias", intercepts, layer=trace.drafts[-1].params[0], mirror=mirrors[1])
        )
    return logits


def _linear(trace: Trace, node: onnx.NodeProto, x: Item, count: int) -> tuple[Value, Weight, Weight | None]:
    """The input (I,), the coefficients (count, I) and the intercepts (count,), None if there are none."""
    value = value_of(node, x)
    coefficients = _attribute(trace, node, "coefficients", "weight")
    features = value.layout.sample_shape
    if coefficients is None or len(features) != 1 or coefficients.array.size != count * features[0]:
        raise refuse(node, f"its coefficients do not make {count} rows over features {features}: check the export")
    intercepts = _attribute(trace, node, "intercepts", "bias")
    if intercepts is not None and intercepts.array.size != count:
        raise refuse(node, f"{intercepts.array.size} intercepts for {count} rows: check the export")
    return value, coefficients.map(lambda a: a.reshape(count, -1)), intercepts


def _attribute(trace: Trace, node: onnx.NodeProto, attribute: str, role: str) -> Weight | None:
    values = attributes(node).get(attribute, [])
    if not values:
        return None
    return trace.weight(node, role, trace.stored(np.array(values, np.float32), attribute, trace.index), None)


def normalizer(trace: Trace, node: onnx.NodeProto, x: Item) -> Item:
    """L1 after a softmax changes nothing, because its outputs already add up to one."""
    value = value_of(node, x)
    maker = trace.maker(value)
    after = maker.op if maker else "input"
    if attributes(node).get("norm", "MAX") != "L1" or after != "softmax":
        raise refuse(node, f"normalising after {after} is not trained yet: do it to the data")
    return value


def scaler(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """(x - offset) scale, neither of which is trained."""
    value, given = value_of(node, x), attributes(node)
    for name, op in (("offset", "sub"), ("scale", "mul")):
        array = np.array(given.get(name, ()), np.float32)
        features = value.layout.shape[-1]
        if array.size not in (1, features):
            raise refuse(node, f"its {name} has {array.size} numbers for {features} features: export again")
        value = calculate(trace, node, op, value, Const(array))
    return value


ML_OPS: dict[str, Handler] = {
    "ai.onnx.ml.LinearClassifier": linear_classifier,
    "ai.onnx.ml.LinearRegressor": linear_regressor,
    "ai.onnx.ml.Normalizer": normalizer,
    "ai.onnx.ml.Scaler": scaler,
}
