"""ONNX in: compiles an ONNX graph into a Plan, and keeps the way back for every trained tensor.

Design:
  a) read_onnx gets the file's graph out of its bytes; whatever is wrong with them is a ModelError.
  b) The nodes that the outputs depend on are walked in order; each is folded (onnx_folds.py) or becomes plan
     nodes (onnx_ops.py). What has no function in either table is refused by name, never trained wrongly.
  c) The head is the output whose computation owns every param; labels and the like stay in the file alone.
  d) A trailing Softmax, LogSoftmax or Sigmoid goes into the loss.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from .errors import ModelError, UsageError, nearest
from .model import Model
from .onnx_folds import FOLDS
from .onnx_ops import OPS
from .onnx_trace import (
    Complement,
    Const,
    Draft,
    Item,
    Readout,
    Trace,
    Value,
    describe,
    op_key,
    refuse,
    to_array,
)
from .plan import LOSSES, Node, Plan

OLDEST_OPSET = 7  # before it Add and Gemm broadcast by attributes
LOSS_OF_TAIL = {"softmax": "cross_entropy", "log_softmax": "cross_entropy", "sigmoid": "bce"}
FLOAT_MODEL = "train the float32 model and quantize the result"
HELP = {
    "DequantizeLinear": FLOAT_MODEL,
    "QuantizeLinear": FLOAT_MODEL,
    "QLinearMatMul": FLOAT_MODEL,
    "onnx.brevitas.BipolarQuant": FLOAT_MODEL,
    "onnx.brevitas.Quant": FLOAT_MODEL,
}


def read_onnx(source: bytes) -> onnx.ModelProto:
    """The model in `source`; raises ModelError for anything that is not a self-contained ONNX file."""
    try:
        proto = onnx.ModelProto.FromString(source)
    except Exception as error:  # protobuf's own class moves between its versions
        raise ModelError(f"not an ONNX file ({error}): export the model to ONNX") from None
    if not proto.graph.node or not proto.ir_version:
        raise ModelError("not an ONNX file, or one without a graph: export the model to ONNX")
    if proto.graph.sparse_initializer:
        raise ModelError("the file holds sparse weights: export them dense")
    return proto


def import_onnx(source: bytes, loss: str | None) -> Model:
    """Compiles the file; `loss` names one of `LOSSES` or is None to infer it.

    Raises ModelError naming the node that can't be trained, UsageError for a loss that does not fit the model.
    """
    if loss is not None and loss not in LOSSES:
        raise UsageError(f"unknown loss {loss!r}: {nearest(loss, LOSSES)}")
    graph = (proto := read_onnx(source)).graph
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if 0 < opset < OLDEST_OPSET:
        raise ModelError(f"opset {opset} is older than {OLDEST_OPSET}: use onnx.version_converter or export again")
    order = _live_order(graph)
    _refuse_unknown_ops(graph, order)
    input_name, batch, shape = _graph_input(graph)
    trace = Trace(opset, batch, _readers(graph, order), _tensor_names(graph))
    items = _walk(trace, graph, order, {input_name: Value(0, shape, input_name)})
    tensor, head, drafts = _head(trace, graph, items)
    chosen, loss_input = _choose_loss(drafts, shape, loss)
    plan = _plan(trace, drafts, shape, chosen, loss_input)
    return Model(
        source=source,
        plan=Plan.from_bytes(plan.to_bytes()),  # so the bounds that a device checks hold here already
        params=np.concatenate([array.ravel() for array in trace.values]),
        bindings=trace.bindings,
        origins=trace.origins,
        input_name=input_name,
        batch=batch,
        output_names=[output.name for output in graph.output],
        output_tensor=tensor,
        output_shape=head.shape,
        loss_inferred=loss is None,
    )


def _plan(trace: Trace, drafts: list[Draft], shape: tuple[int, ...], loss: str, loss_input: int) -> Plan:
    """The drafts that the head needs, its own last, numbered anew."""
    numbers = {0: 0} | {draft.value.number: at + 1 for at, draft in enumerate(drafts)}
    return Plan(
        input_shape=list(shape),
        nodes=[Node(draft.op, [numbers[i] for i in draft.inputs], draft.params) for draft in drafts],
        params=trace.params,
        loss=loss,
        loss_input=numbers[loss_input],
        output=len(drafts),
    )


def _graph_input(graph: onnx.GraphProto) -> tuple[str, int | None, tuple[int, ...]]:
    """Name, fixed number of samples or None, and per-sample shape of the one input that is no initializer."""
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for info in graph.input:
        if info.name in stored and _dims(info) not in (None, stored[info.name]):
            raise ModelError(
                f"initializer {info.name!r} is {stored[info.name]}, its declared shape {_dims(info)}: "
                "export the model again"
            )
    inputs = [info for info in graph.input if info.name not in stored]
    if len(inputs) != 1:
        names = ", ".join(repr(info.name) for info in inputs) or "none"
        raise ModelError(f"EdgeFL trains models with one input, this one has {names}: merge them into one tensor")
    info, dims = inputs[0], _dims(inputs[0])
    if info.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ModelError(f"input {info.name!r} is not float32: export the model for float32 inputs")
    if dims is None or not 2 <= len(dims) <= 5:
        raise ModelError(f"input {info.name!r} has shape {dims}: declare (samples, features), or up to 4 axes a sample")
    shape = tuple(size for size in dims[1:] if size is not None)
    if len(shape) != len(dims) - 1:
        raise ModelError(
            f"input {info.name!r} has a dynamic axis {dims.index(None, 1)}: only the first, for samples, "
            "may be; export with fixed sizes"
        )
    return info.name, dims[0], shape


def _dims(info: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The declared shape, None for what is dynamic or missing."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)


def _live_order(graph: onnx.GraphProto) -> list[int]:
    """Numbers of the nodes that the outputs depend on, each after those it reads."""
    known = {"", *(info.name for info in graph.input), *(tensor.name for tensor in graph.initializer)}
    makers: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in makers or name in known:
                raise refuse(node, f"its output {name!r} exists already: export the model again")
            makers[name] = index
    order: list[int] = []
    state: dict[int, str] = {}
    pending = [(output.name, "the graph", False) for output in reversed(graph.output)]
    while pending:
        name, reader, leaving = pending.pop()
        if leaving:
            state[makers[name]] = "done"
            order.append(makers[name])
        elif name not in makers:
            if name not in known:
                raise ModelError(f"{reader} reads {name!r}, which nothing in the file makes: export the model again")
        elif state.get(makers[name]) == "open":
            raise refuse(graph.node[makers[name]], "it depends on its own output: unroll the loop before export")
        elif makers[name] not in state:
            node = graph.node[makers[name]]
            state[makers[name]] = "open"
            pending.append((name, reader, True))
            pending.extend((read, describe(node), False) for read in reversed(node.input))
    return order


def _readers(graph: onnx.GraphProto, order: list[int]) -> dict[str, int]:
    readers: dict[str, int] = {}
    for names in [[output.name for output in graph.output], *(graph.node[index].input for index in order)]:
        for name in names:
            readers[name] = readers.get(name, 0) + 1
    return readers


def _tensor_names(graph: onnx.GraphProto) -> set[str]:
    made = {name for node in graph.node for name in [*node.input, *node.output]}
    return made | {tensor.name for tensor in graph.initializer} | {info.name for info in graph.input}


def _refuse_unknown_ops(graph: onnx.GraphProto, order: list[int]) -> None:
    """Before anything else is looked at: the name of such an op tells an operator most."""
    for node in (graph.node[index] for index in order):
        key = op_key(node)
        if key not in OPS and key not in FOLDS:
            raise refuse(node, f"this op is not trained yet: {HELP.get(key, 'export a model without it')}")


def _walk(trace: Trace, graph: onnx.GraphProto, order: list[int], items: dict[str, Item]) -> dict[str, Item]:
    """What every live tensor is."""
    for index, tensor in enumerate(graph.initializer):
        if tensor.name in trace.readers:
            array = to_array(tensor, f"initializer {tensor.name!r}")
            items[tensor.name] = trace.stored(array, None, index, tensor.name)
    for index in order:
        trace.index = index
        made = _apply(trace, graph.node[index], items)
        items.update(zip(graph.node[index].output, made, strict=False))
    return items


def _apply(trace: Trace, node: onnx.NodeProto, items: dict[str, Item]) -> tuple[Item, ...]:
    """What one node makes of its inputs."""
    missing = next((name for name in node.input if name and name not in items), None)
    if missing is not None:
        raise refuse(node, f"it reads {missing!r}, which EdgeFL does not follow: leave it out of the export")
    inputs = [items.get(name) for name in node.input]
    constant = all(item is None or isinstance(item, Const) for item in inputs)
    handler = (FOLDS if constant else OPS).get(op_key(node))
    if handler is None:
        what = "constants" if constant else "activations"
        raise refuse(node, f"its use on {what} is not trained yet: export the model with constants folded")
    try:
        made = handler(trace, node, *inputs)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise refuse(node, f"malformed ({error}): export the model again") from error
    return made if isinstance(made, tuple) else (made,)


def _head(trace: Trace, graph: onnx.GraphProto, items: dict[str, Item]) -> tuple[str, Value, list[Draft]]:
    """The head's tensor, its value, and the plan nodes it needs, in order."""
    if not trace.params:
        raise ModelError("the model has nothing to train: its graph reads no float32 weights; export one with weights")
    found = [(output.name, items.get(output.name)) for output in graph.output]
    for name, item in found:
        if isinstance(item, Complement):
            raise ModelError(f"output {name!r} is 1 - p: export the probability p itself")
    heads = [(name, item) for name, item in found if isinstance(item, Value)]
    heads += [(item.value.tensor, item.value) for _, item in found if isinstance(item, Readout)]
    for name, value in heads:
        nodes = _ancestors(trace.drafts, value.number)
        owned = {param for number in nodes for param in trace.drafts[number - 1].params}
        if len(owned) == len(trace.params):
            return name, value, [trace.drafts[number - 1] for number in nodes]
    names = ", ".join(repr(name) for name, _ in found)
    raise ModelError(f"no output depends on all weights (outputs: {names}): export one head")


def _ancestors(drafts: list[Draft], number: int) -> list[int]:
    needed, pending = set(), [number]
    while pending:
        if (at := pending.pop()) and at not in needed:
            needed.add(at)
            pending.extend(drafts[at - 1].inputs)
    return sorted(needed)


def _choose_loss(drafts: list[Draft], input_shape: tuple[int, ...], named: str | None) -> tuple[str, int]:
    """The loss and the value that it reads, as a number of the trace. The last draft is the head."""
    last = drafts[-1]
    shape, tail = last.value.shape, LOSS_OF_TAIL.get(last.op)
    like_input = shape == input_shape or math.prod(shape) == 1
    loss = named or tail or last.loss or ("mse" if like_input else "cross_entropy")
    softmax = [draft for draft in drafts if LOSS_OF_TAIL.get(draft.op) == "cross_entropy"]
    if any(draft is not last for draft in softmax):
        raise ModelError(f"{softmax[0].onnx_node}: softmax inside the net is not trained yet: keep it for the output")
    if tail and loss != tail and not (loss == "mse" and last.op == "sigmoid"):
        raise UsageError(f"loss {loss!r} does not fit a model that ends in {last.op}: use {tail!r}, or leave it out")
    if loss == "cross_entropy" and (len(shape) != 1 or shape[0] < 2):
        raise UsageError(f"loss 'cross_entropy' needs one row of classes, the output is {shape}: use 'bce' or 'mse'")
    return loss, last.inputs[0] if loss == tail else last.value.number
