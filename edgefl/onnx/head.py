"""The end of the graph: which output is the model's, what the loss reads, and the finished plan."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from ..core.plan import Node, Plan
from ..errors import ModelError, UsageError
from .arrange import arranged
from .infer import TAKES_LABELS, infer_loss
from .items import Item, Readout, Value
from .layout import Factor
from .nodes import refuse
from .trace import Trace


@dataclass(frozen=True)
class Head:
    """The value that `predict` returns, and its name in the file."""

    tensor: str
    value: Value
    node: onnx.NodeProto  # that makes it


@dataclass(frozen=True)
class Ending:
    """Value numbers of the trace, and the axis of the ONNX output that the classes lie along."""

    loss: str
    loss_input: int
    output: int
    class_axis: int
    tail: str  # the op that the loss has taken over, "" if none
    why: str  # this loss


def find_head(trace: Trace, graph: onnx.GraphProto, items: dict[str, Item]) -> Head:
    """The output that depends on every trained param."""
    trained = {at for at, param in enumerate(trace.params) if param.trainable}
    if not trained:
        raise ModelError(
            "the model has nothing to train: its graph reads no float32 weights, or all are frozen; leave some to train"
        )
    found = [(output.name, items.get(output.name)) for output in graph.output]
    heads = [(name, item) for name, item in found if isinstance(item, Value)]
    heads += [(item.value.tensor, item.value) for _, item in found if isinstance(item, Readout)]
    for name, value in heads:
        if trained <= {param for at in ancestors(trace, [value.number]) for param in trace.drafts[at - 1].params}:
            node = next(node for node in graph.node if name in node.output)
            if not value.layout.leads:
                raise refuse(node, f"the output {name!r} mixes samples, or has them elsewhere: export one row a sample")
            return Head(name, value, node)
    names = ", ".join(repr(name) for name, _ in found)
    raise ModelError(f"no output depends on all weights (outputs: {names}): export one head")


def ancestors(trace: Trace, numbers: list[int]) -> list[int]:
    """These values and all that they are computed from, in order, without the input."""
    needed, pending = set(), list(numbers)
    while pending:
        if (at := pending.pop()) and at not in needed:
            needed.add(at)
            pending.extend(trace.drafts[at - 1].inputs)
    return sorted(needed)


def choose_loss(
    trace: Trace, head: Head, input_shape: tuple[int, ...], named: str | None, y: np.ndarray | None = None
) -> Ending:
    """The loss, named or inferred. Targets have the shape of the file's output; labels lack its axis of classes."""
    value, maker = head.value, trace.maker(head.value)
    assert maker is not None, "what owns params is no input"
    shape = value.layout.sample_shape
    loss, why, tail = infer_loss(
        named, maker.op, maker.loss, shape=shape, input_shape=input_shape, y=y
    )  # fmt: skip
    labels = loss in TAKES_LABELS
    if tail and labels != (tail in TAKES_LABELS):
        use = "'cross_entropy'" if tail in TAKES_LABELS else "'bce' or 'mse'"
        raise UsageError(f"loss {loss!r} does not fit a model that ends in {maker.op}: use {use}, or leave it out")
    taken_over = bool(tail) and (labels or loss == tail)
    read = replace(value, number=maker.inputs[0]) if taken_over else value
    order, class_axis = list(value.layout.inner), -1
    if labels:
        class_axis = _class_axis(trace, head, bool(tail))
        if class_axis < 0 or value.layout.size(class_axis) < 2:
            raise UsageError(f"loss {loss!r} needs an axis of classes, the output is {shape}: use 'bce' or 'mse'")
        order.remove(class_axis)
        order.append(class_axis)
    loss_input = arranged(trace, head.node, read, order, [value.layout.size(axis) for axis in order])
    output = arranged(trace, head.node, value, value.layout.inner, shape)
    return Ending(loss, loss_input, output, class_axis, maker.op if taken_over else "", why)


def _class_axis(trace: Trace, head: Head, softmax: bool) -> int:
    """The axis of the softmax. Without a softmax it is the innermost in memory: channels or features; -1 if there is no
    axis."""
    layout = head.value.layout
    size = trace.shapes[head.value.number][-1] if softmax else None
    for axis in layout.inner:
        block = layout.factors([axis])
        if block == (Factor(layout.size(axis), 1),) and size in (None, layout.size(axis)):
            return axis
    if softmax:
        raise ModelError(f"output {head.tensor!r} spreads its classes over several axes: give them one of their own")
    return layout.inner[-1] if layout.inner else -1


def finish(trace: Trace, ending: Ending, input_shape: tuple[int, ...], tokens: bool) -> tuple[Plan, list[int]]:
    """The plan of the nodes that the loss and the output need, and the numbers of its params in the trace: first those
    that train, then state."""
    needed = ancestors(trace, [ending.loss_input, ending.output])
    numbers = {0: 0} | {old: new for new, old in enumerate(needed, 1)}
    drafts = [trace.drafts[at - 1] for at in needed]
    owned = sorted({param for draft in drafts for param in draft.params})
    owned.sort(key=lambda param: not trace.params[param].trainable)
    place = {old: new for new, old in enumerate(owned)}
    nodes = [
        Node(
            draft.op,
            [numbers[number] for number in draft.inputs],
            [place[param] for param in draft.params],
            draft.ints,
            draft.floats,
        )
        for draft in drafts
    ]
    plan = Plan(
        input_shape=list(input_shape),
        nodes=nodes,
        params=[trace.params[param] for param in owned],
        loss=ending.loss,
        loss_input=numbers[ending.loss_input],
        output=numbers[ending.output],
        input_dtype="int64" if tokens else "float32",
    )
    return plan, owned
