"""LSTM, GRU and RNN. ONNX has the steps first, (T, samples, features), or with layout=1 the samples. Exporters put
Transpose nodes around them, which cost nothing here (layout.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from ..arrange import arranged
from ..items import Const, Handler, Item, Readout, Value, value_of
from ..layout import Layout, fresh
from ..nodes import attributes, refuse
from ..trace import Trace

DIRECTIONS = ("forward", "reverse", "bidirectional")
# Of one direction; where there are several, their places are the numbers in the plan.
ACTIVATIONS = {"lstm": [["sigmoid", "tanh", "tanh"]], "gru": [["sigmoid", "tanh"]], "rnn": [["tanh"], ["relu"]]}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
STATES = {"lstm": 2, "gru": 1, "rnn": 1}


def recurrent(op: str) -> Callable[..., tuple[Item, ...]]:
    def handler(trace: Trace, node: onnx.NodeProto, x: Item, *inputs: Item | None) -> tuple[Item, ...]:
        """`inputs` are W, R and, if given, B, the steps of each sample, the initial states and an LSTM's peepholes."""
        weights, rest = (*inputs[:3], None)[:3], inputs[3:]
        given, value = attributes(node), value_of(node, x)
        direction, activation = _checked(node, op, given, rest)
        steps_axis, samples_axis = (1, 0) if given.get("layout", 0) else (0, 1)
        layout = value.layout
        if len(layout.axes) != 3 or layout.samples != samples_axis or len(layout.inner) != 2:
            raise refuse(
                node,
                f"its input {layout} is no sequence for each sample: export with batch_first, "
                "or with a fixed number of steps",
            )
        steps, features = layout.shape[steps_axis], layout.shape[2]
        directions = 2 if direction == 2 else 1
        params, hidden = _weights(trace, node, op, features, weights, directions=directions)
        if given.get("hidden_size", hidden) != hidden:
            raise refuse(node, f"hidden_size={given['hidden_size']}, its weights have {hidden}: export again")
        _whole(node, rest, steps)
        starts = [_start(trace, node, item, 5 + k, directions=directions, hidden=hidden, samples_axis=samples_axis)
                  for k, item in enumerate((*rest[1:], None, None)[: STATES[op]])]  # fmt: skip
        if any(start is not None for start in starts):
            zeros = np.zeros((directions, hidden))
            params += [trace.constant(node, "state", zeros) if start is None else start for start in starts]
        read = [bool(name and trace.readers.get(name)) for name in (*node.output, "", "")]
        if read[2] and not (read[0] or read[1]):
            raise refuse(node, "its cell state alone is read: use the hidden state")
        width = hidden * directions
        number = arranged(trace, node, value, [steps_axis, 2], [steps, features])
        ints = [hidden, direction, 0 if read[0] else 1]
        ints += {"gru": [given.get("linear_before_reset", 0)], "rnn": [activation]}.get(op, [])
        shape = (steps, width) if read[0] else (width,)
        number = trace.append(node, op, [number], shape, params=params, ints=ints)
        sequence = Value(number, _sequence(trace, steps, hidden, direction, samples_axis), node.output[0])
        if not read[1]:
            return sequence, sequence, Readout(sequence)  # an output for people: the plan has no cell states
        if read[0]:
            number = _last(trace, node, number, steps=steps, hidden=hidden, direction=direction)
        state = Value(number, _state(trace, hidden, direction, samples_axis), node.output[1])
        return sequence, state, Readout(sequence if read[0] else state)

    return handler


def _checked(node: onnx.NodeProto, op: str, given: dict[str, Any], rest: Sequence[Item | None]) -> tuple[int, int]:
    """The numbers of the direction and the activation; refuses every option that the plan's op does not compute."""
    direction = given.get("direction", "forward")
    if direction not in DIRECTIONS:
        raise refuse(node, f"direction={direction} is not known: use one of {', '.join(DIRECTIONS)}")
    named = [name.decode() if isinstance(name, bytes) else name for name in given.get("activations") or []]
    both = 2 if direction == "bidirectional" else 1
    known = [names * both for names in ACTIVATIONS[op]]
    lowered = [name.lower() for name in named] or known[0]
    if lowered not in known:
        choices = " or ".join(str([name.capitalize() for name in names]) for names in ACTIVATIONS[op])
        raise refuse(node, f"activations {named} are not trained: use {choices}")
    if given.get("clip", 0) or given.get("input_forget", 0):
        raise refuse(node, "clip and input_forget are not trained: export without them")
    if len(rest) > 3 and rest[3] is not None:
        raise refuse(node, "its peephole weights are given, which are not trained: use an LSTM without peepholes")
    return DIRECTIONS.index(direction), known.index(lowered)


def _whole(node: onnx.NodeProto, rest: Sequence[Item | None], steps: int) -> None:
    """Refuses samples of fewer steps than the input has."""
    lengths = rest[0] if rest else None
    if lengths is not None and not (isinstance(lengths, Const) and (lengths.array == steps).all()):
        raise refuse(node, f"its sequence_lens are given: only sequences of all {steps} steps are trained")


def _start(
    trace: Trace, node: onnx.NodeProto, item: Item | None, slot: int, *, directions: int, hidden: int, samples_axis: int
) -> int | None:
    """The Param (D, H) of an initial state that is the same for each sample. None for zeros, which are not trained."""
    if item is None:
        return None
    if not isinstance(item, Const):
        raise refuse(
            node,
            "its initial state is computed from the input: start from zeros, or from stored numbers; an input that is "
            "the same for every sample is named with its number: constants={'NAME': 0} (--constant NAME=0)",
        )
    array = item.array
    if not array.any():
        return None
    shape = array.shape
    if array.ndim != 3 or (*shape[:samples_axis], *shape[samples_axis + 1 :]) != (directions, hidden):
        raise refuse(node, f"its initial state {shape} does not fit {hidden} units: export again")
    if (array != array.take([0], samples_axis)).any():
        raise refuse(node, "its initial state differs between samples: start all from the same numbers")
    if item.where is None:
        return trace.constant(node, "state", array.take(0, samples_axis))
    weight = trace.weight(node, "state", item, slot).map(lambda each: each.take(0, samples_axis))
    if weight.trainable:
        why = trace.why_repeated(node, "state", item, shape[samples_axis])
        weight = replace(weight, trainable=not why, why=why)
    return trace.param(node, "state", weight)


def _weights(
    trace: Trace, node: onnx.NodeProto, op: str, features: int, items: Sequence[Item | None], *, directions: int
) -> tuple[list[int], int]:
    """Params Wx (D, I, GH), Wh (D, H, GH), and both biases (D, GH); and H."""
    gates = GATES[op]
    w, r = (trace.weight(node, role, item, slot) for slot, role, item in ((1, "W", items[0]), (2, "R", items[1])))
    hidden = r.array.shape[-1]
    rows = gates * hidden
    if w.array.shape != (directions, rows, features) or r.array.shape != (directions, rows, hidden):
        raise refuse(node, f"weights {w.array.shape} and {r.array.shape} do not fit {features} features: export again")
    params = [
        trace.param(node, role, each.map(lambda array: array.transpose(0, 2, 1))) for role, each in (("W", w), ("R", r))
    ]
    if items[2] is None:
        return params + [trace.constant(node, "B", np.zeros((directions, rows))) for _ in range(2)], hidden
    bias = trace.weight(node, "B", items[2], 3)
    if bias.array.shape != (directions, 2 * rows):
        raise refuse(node, f"its bias has shape {bias.array.shape}, not {(directions, 2 * rows)}: export again")
    first = trace.param(node, "B", bias.map(lambda array: array[:, :rows]), layer=params[0])
    # Named after the first, so that a saved file with biases of their own has the same names when it is loaded again.
    rest = replace(bias.map(lambda array: array[:, rows:]), name=f"{trace.params[first].name}.R")
    return [*params, first, trace.param(node, "B", rest, layer=params[0])], hidden


def _sequence(trace: Trace, steps: int, hidden: int, direction: int, samples_axis: int) -> Layout:
    """(T, D, samples, H), or (samples, T, D, H) with layout=1, of a plan's (T, D H)."""
    directions = 2 if direction == 2 else 1
    sizes: list[int | None] = [steps, directions, hidden]
    sizes.insert(2 if samples_axis else 0, None)
    return fresh(sizes, trace.samples)


def _state(trace: Trace, hidden: int, direction: int, samples_axis: int) -> Layout:
    """(D, samples, H), or (samples, D, H) with layout=1, of a plan's (D H)."""
    sizes: list[int | None] = [2 if direction == 2 else 1, hidden]
    sizes.insert(1 if samples_axis else 0, None)
    return fresh(sizes, trace.samples)


def _last(trace: Trace, node: onnx.NodeProto, number: int, *, steps: int, hidden: int, direction: int) -> int:
    """The state after the last step, taken from the sequence (T, D H). The backward half ends at the first step."""
    ends = {0: [steps - 1], 1: [0], 2: [steps - 1, 0]}[direction]
    parts = []
    for at, step in enumerate(ends):
        row = trace.append(node, "slice", [number], (1, hidden * len(ends)), ints=[0, step, 1])
        if len(ends) > 1:
            row = trace.append(node, "slice", [row], (1, hidden), ints=[1, at * hidden, hidden])
        parts.append(row)
    return parts[0] if len(parts) == 1 else trace.append(node, "concat", parts, (1, 2 * hidden), ints=[1])


RECURRENT_OPS: dict[str, Handler] = {
    "GRU": recurrent("gru"),
    "LSTM": recurrent("lstm"),
    "RNN": recurrent("rnn"),
}
