"""scikit-learn's SGDClassifier with one probability for each class, as skl2onnx writes it in plain ops: a logistic
1 / (1 + exp(-s)) for each class, divided by their sum, and by 1 where that is 0.

Each class is trained by itself, as scikit-learn does, so the shares of the sum are an output for people.
"""

from __future__ import annotations

import onnx

from ..items import Handler, Item, Readout, Value
from ..nodes import refuse
from ..trace import Draft, Trace
from .arithmetic import arithmetic, power

MOVES = ("flatten", "reshape")
OF_A_SUM = ("abs", "add", "mean", "mul", "step", *MOVES)


def reciprocal(trace: Trace, node: onnx.NodeProto, x: Item) -> Value:
    """1 / (1 + exp(-s)) is the sigmoid of s."""
    if isinstance(x, Value) and x.hidden is None:
        plus = trace.maker(x)
        exp = _before(trace, plus) if plus is not None and _by_number(trace, plus, "add", 1) else None
        minus = _before(trace, exp) if exp is not None and exp.op == "exp" else None
        if minus is not None and _by_number(trace, minus, "mul", -1):
            number = trace.append(node, "sigmoid", minus.inputs, trace.shapes[x.number])
            return Value(number, x.layout, node.output[0])
    return power(trace, node, x)


def divide(trace: Trace, node: onnx.NodeProto, a: Item, b: Item) -> Item:
    if isinstance(a, Value) and isinstance(b, Value) and (shared := _shared(trace, a, b)) is not None:
        maker = trace.maker(shared)
        if maker is not None and maker.op == "sigmoid":
            return Readout(shared)
        raise refuse(
            node, "its probabilities are of a loss that is not trained: export scores, with the option raw_scores=True"
        )
    return arithmetic("div")(trace, node, a, b)


def _shared(trace: Trace, a: Value, b: Value) -> Value | None:
    """p, if this is (p + z) / (the sum of p, and what makes it other than 0), with z a step of that sum."""
    plus = trace.maker(a)
    if plus is None or plus.op != "add" or len(plus.inputs) != 2:
        return None
    p, z = plus.inputs
    at = trace.drafts[z - 1] if z else None
    while at is not None and at.op in MOVES:
        at = _before(trace, at)
    if at is None or at.op != "step" or trace.shapes[p] != trace.shapes[a.number]:
        return None
    pending, means = [b.number], 0
    while pending:
        number = pending.pop()
        if number == p:
            continue
        if not number or trace.drafts[number - 1].op not in OF_A_SUM:
            return None
        means += trace.drafts[number - 1].op == "mean"
        pending.extend(trace.drafts[number - 1].inputs)
    return Value(p, a.layout, a.tensor) if means else None


def _before(trace: Trace, draft: Draft) -> Draft | None:
    """The node that makes its first input."""
    return trace.drafts[draft.inputs[0] - 1] if draft.inputs[0] else None


def _by_number(trace: Trace, draft: Draft, op: str, number: float) -> bool:
    """Whether it adds or multiplies by this number, which is not trained."""
    if draft.op != op or len(draft.inputs) != 1 or len(draft.params) != 1:
        return False
    param = draft.params[0]
    return not trace.params[param].trainable and trace.values[param].size == 1 and trace.values[param].item() == number


ONE_VS_REST_OPS: dict[str, Handler] = {"Div": divide, "Reciprocal": reciprocal}
