"""The end of the graph: which outputs are trained, what their losses read, and the finished plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
from msgspec import UNSET

from ..core import plan as plans
from ..core.plan import Node, Plan
from ..errors import ModelError, UsageError, nearest
from .arrange import arranged, reshaped
from .infer import TAKES_LABELS, infer_loss
from .inputs import Reading
from .items import Item, Readout, Value
from .layout import Factor
from .losses import Ending, Wanted
from .nodes import refuse
from .trace import Trace

MOVES = ("concat", "flatten", "reshape", "transpose")
CHOSEN = {"step": slice(0), "keep": slice(1), "select": slice(1, None)}  # inputs that are no condition


@dataclass(frozen=True)
class Head:
    """The value that `predict` returns for one output, which the file calls `tensor`: the output itself, or what a node
    makes labels and the like of. `loss` and `weight` are what the caller asked for."""

    name: str
    tensor: str
    value: Value
    node: onnx.NodeProto  # that makes it
    loss: str | None
    weight: float = 1.0
    axis: int | None = 0  # of the samples in the output, which `value` has first; None: it has none


def find_heads(trace: Trace, graph: onnx.GraphProto, items: dict[str, Item], loss: Wanted) -> list[Head]:
    """The output that depends on every trained param; or those that the caller names, in the file's order, which do
    together."""
    trained = {at for at, param in enumerate(trace.params) if param.trainable}
    if not trained:
        raise ModelError(
            "the model has nothing to train: its graph reads no float32 weights, or all are frozen; leave some to train"
        )
    found = [(output.name, items.get(output.name)) for output in graph.output]
    values = [(name, name, item) for name, item in found if isinstance(item, Value)]
    values += [(name, item.value.tensor, item.value) for name, item in found if isinstance(item, Readout)]
    if isinstance(loss, Mapping):
        return _named_heads(trace, graph, values, loss, trained)
    whole = [item for item in values if trained <= _params_of(trace, [item[2]])]
    for name, tensor, value in whole:
        if trained & _learning(trace, value):
            return [_head(trace, graph, name, tensor, value, loss=loss)]
    if whole:
        raise ModelError(
            f"the output {whole[0][0]!r} depends on weights by comparisons alone, which have no slope: export the "
            "numbers that are compared as an output too, scores or probabilities"
        )
    names = ", ".join(repr(name) for name, _ in found)
    hint = ", ".join(f"{name!r}: ..." for name, _ in found[:3])
    raise ModelError(
        f"no output depends on all weights (outputs: {names}): export one head, or name several with a loss for each: "
        f"loss={{{hint}}}"
    )


def _named_heads(
    trace: Trace,
    graph: onnx.GraphProto,
    values: Sequence[tuple[str, str, Value]],
    losses: Mapping[str, tuple[str, float]],
    trained: set[int],
) -> list[Head]:
    known = [name for name, _, _ in values]
    for name in losses:
        if name not in known:
            raise UsageError(f"loss names {name!r}, no output that can be trained: {nearest(name, known)}")
    heads = []
    for name, tensor, value in values:
        if name in losses:
            if not _learning(trace, value) & trained:
                raise UsageError(
                    f"loss names {name!r}, which depends on no trained weight, or by comparisons alone: leave it out"
                )
            kind, weight = losses[name]
            heads.append(_head(trace, graph, name, tensor, value, loss=kind, weight=weight))
    if missed := trained - _params_of(trace, [head.value for head in heads]):
        names = ", ".join(sorted(trace.params[at].name for at in missed)[:4])
        raise UsageError(
            f"the outputs that loss names do not depend on {names}: name further outputs, or freeze these weights"
        )
    if len(heads) == 1 and heads[0].weight != 1:
        raise UsageError("loss gives the only trained output a weight: leave it out, lr does the same")
    return heads


def with_reasons(endings: Sequence[Ending], known: Sequence[Ending]) -> tuple[Ending, ...]:
    """The same endings, with the reasons for their losses that are known of an earlier compilation."""
    return tuple(replace(ending, why=other.why) for ending, other in zip(endings, known, strict=True))


def _params_of(trace: Trace, values: Sequence[Value]) -> set[int]:
    needed = ancestors(trace, [value.number for value in values])
    return {param for at in needed for param in trace.drafts[at - 1].params}


def _learning(trace: Trace, value: Value) -> set[int]:
    """The params that a loss of this value has a gradient for: that of a condition is 0."""
    needed = ancestors(trace, [value.number], sloped=True)
    return {param for at in needed for param in trace.drafts[at - 1].params}


def _head(
    trace: Trace, graph: onnx.GraphProto, name: str, tensor: str, value: Value, *, loss: str | None, weight: float = 1.0
) -> Head:
    node = next(node for node in graph.node if tensor in node.output)
    if value.hidden is not None:
        raise refuse(node, f"the output {tensor!r} holds minus infinity: end the model before the mask")
    if trace.homes:
        value = replace(value, layout=value.layout.homed(0))
    axis = value.layout.samples if value.layout.samples >= 0 else None
    layout = value.layout if axis is None else value.layout.led()
    if layout is None:
        raise refuse(node, f"the output {tensor!r} mixes samples: export one row a sample")
    return Head(name, tensor, replace(value, layout=layout), node, loss, weight, axis)


def ancestors(trace: Trace, numbers: list[int], *, sloped: bool = False) -> list[int]:
    """These values and all that they are computed from, in order, without the input. `sloped`: but for what only
    decides which number is taken."""
    needed, pending = set(), list(numbers)
    while pending:
        if (at := pending.pop()) and at not in needed:
            needed.add(at)
            draft = trace.drafts[at - 1]
            pending.extend(draft.inputs[CHOSEN[draft.op]] if sloped and draft.op in CHOSEN else draft.inputs)
    return sorted(needed)


def choose_loss(trace: Trace, head: Head, reading: Reading, y: np.ndarray | None = None) -> Ending:
    """The loss, named or inferred. Targets have the shape of the file's output; labels lack its axis of classes."""
    value, maker = head.value, trace.maker(head.value)
    assert maker is not None, "what owns params is no input"
    shape = value.layout.sample_shape
    input_shape = reading.shape if len(reading.inputs) == 1 else (0,)  # what no autoencoder gives back
    declared = _declared(trace, value)
    loss, why, tail = infer_loss(head.loss, maker.op, declared, shape=shape, input_shape=input_shape, y=y)
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
    tail = maker.op if taken_over else ""
    if class_axis >= 0 and value.layout.samples < 0:
        class_axis += 1  # behind that of the samples, which the file does not have
    ends = (loss_input, output, class_axis, tail, why, head.axis)
    return Ending(head.name, head.tensor, shape, loss, head.weight, *ends)


def _declared(trace: Trace, value: Value) -> str | None:
    """What the op that makes the output says of its loss; or the ops, where it has the numbers of several that say the
    same, as those of scikit-learn's MultiOutputRegressor."""
    found, pending = set[str | None](), [value.number]
    while pending:
        at = pending.pop()
        draft = trace.drafts[at - 1] if at else None
        if draft is not None and draft.loss is None and draft.op in MOVES:
            pending.extend(draft.inputs)
        else:
            found.add(draft.loss if draft is not None else None)
    return found.pop() if len(found) == 1 else None


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


def finish(trace: Trace, endings: Sequence[Ending], reading: Reading) -> tuple[Plan, list[int]]:
    """The plan of the nodes that the losses and the outputs need, and the numbers of its params in the trace: first
    those that train, then state. Several outputs are joined to a flat row."""
    output = endings[0].output if len(endings) == 1 else _joined(trace, endings)
    needed = ancestors(trace, [*(ending.loss_input for ending in endings), output])
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
    heads = [plans.Head(e.name, e.loss, numbers[e.loss_input], e.weight, list(e.shape)) for e in endings]
    plan = Plan(
        input_shape=list(reading.shape),
        nodes=nodes,
        params=[trace.params[param] for param in owned],
        loss=endings[0].loss,
        loss_input=numbers[endings[0].loss_input],
        output=numbers[output],
        input_dtype="int64" if reading.tokens else "float32",
        inputs=reading.declared() or UNSET,
        losses=heads if len(heads) > 1 else UNSET,
    )
    return plan, owned


def _joined(trace: Trace, endings: Sequence[Ending]) -> int:
    node = onnx.NodeProto(op_type="outputs", name=", ".join(ending.name for ending in endings))
    flat = [reshaped(trace, node, ending.output, (prod(ending.shape),)) for ending in endings]
    return trace.append(node, "concat", flat, (sum(prod(ending.shape) for ending in endings),), ints=[0])
