"""scikit-learn's linear models, as skl2onnx writes them: ops of ai.onnx.ml that keep the weights in attributes.

Specification: https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from ..arrange import in_memory_order, innermost
from ..items import Const, Handler, Item, Readout, Value, Weight, value_of
from ..nodes import attributes, refuse
from ..trace import Trace
from .arithmetic import calculate
from .dense import dense
from .passing import readout
from .reduce import total

TRANSFORMS = {"NONE": "", "SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}
TINY, LARGEST = 1e-30, float(np.finfo(np.float32).max)


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
        return Readout(scores), Readout(scores)  # the file has two columns: nothing may compute with them
    elif transform in TRANSFORMS and count == classes >= 2:
        scores = replace(_dense(trace, node, value, rows, intercepts), tensor=node.output[1])
        if TRANSFORMS[transform]:
            scores = _activated(trace, node, TRANSFORMS[transform], scores)
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
    """Each sample divided by its norm. L1 after a softmax, or of p and 1 - p, changes nothing; after one sigmoid for
    each class it makes an output for people."""
    norm = attributes(node).get("norm", "MAX")
    if norm == "L1" and isinstance(x, Readout):
        return x
    value = value_of(node, x)
    maker = trace.maker(value)
    if norm == "L1" and maker is not None and maker.op == "softmax":
        return value
    if norm == "L1" and maker is not None and maker.op == "sigmoid":
        return Readout(value)
    if norm not in ("L1", "L2") or len(value.layout.axes) != 2:
        raise refuse(node, f"norm={norm} of {value.layout} is not trained: divide rows of features by L1 or L2")
    size = _pointwise(trace, node, "abs", value) if norm == "L1" else calculate(trace, node, "mul", value, value)
    whole = total(trace, node, size, Const(np.array([1])))
    whole = _pointwise(trace, node, "clip", whole, [TINY, LARGEST])  # a row of zeros stays one
    return calculate(trace, node, "div", value, whole if norm == "L1" else _pointwise(trace, node, "sqrt", whole))


def _pointwise(trace: Trace, node: onnx.NodeProto, op: str, value: Value, floats: Sequence[float] = ()) -> Value:
    return replace(value, number=trace.append(node, op, [value.number], trace.shapes[value.number], floats=floats))


def imputer(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """Fills in missing numbers, which are NaN. The examples that a device trains on have none, so it passes them on."""
    value, given = value_of(node, x), attributes(node)
    if "replaced_value_int64" in given or not np.isnan(given.get("replaced_value_float", 0.0)):
        raise refuse(node, "it replaces numbers other than NaN: fill in what is missing before training")
    return replace(value, tensor=node.output[0])


def chosen_features(trace: Trace, node: onnx.NodeProto, x: Item, indices: Item) -> Item:
    """The features at constant places, as a product with ones and zeros. Behind a weight it is an output for people: a
    label, or the score of one class."""
    if not isinstance(x, Value) or not isinstance(indices, Const) or x.number in trace.weighted:
        return readout(trace, node, x, indices)
    features, places = x.layout.shape[-1], indices.array.ravel().astype(np.int64)
    if len(x.layout.axes) != 2 or not places.size or places.min() < 0 or places.max() >= features:
        raise refuse(node, f"takes features {places.tolist()} of {x.layout}: check the export")
    value, block, size = innermost(trace, node, x, [1])
    matrix = np.zeros((features, places.size), np.float32)
    matrix[places, np.arange(places.size)] = 1
    param = trace.constant(node, "places", matrix[in_memory_order(block)])
    number = trace.append(node, "dense", [value.number], (places.size,), params=[param])
    return Value(number, value.layout.resized(1, size, places.size), node.output[0])


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
    "ai.onnx.ml.ArrayFeatureExtractor": chosen_features,
    "ai.onnx.ml.Imputer": imputer,
    "ai.onnx.ml.LinearClassifier": linear_classifier,
    "ai.onnx.ml.LinearRegressor": linear_regressor,
    "ai.onnx.ml.Normalizer": normalizer,
    "ai.onnx.ml.Scaler": scaler,
}
