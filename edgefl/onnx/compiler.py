"""ONNX in: compiles an ONNX graph into a Plan, and notes for every trained tensor where it lies in the file.

Design:
  a) graph.py reads the graph from the file's bytes, and inputs.py its inputs: several are slices of one row.
  b) The nodes that the outputs depend on are walked in order; each is folded (folds.py) or becomes plan
     nodes (ops/table.py). What has no function in either table is refused by name, never trained wrongly.
  c) No data is moved to follow ONNX's order of axes: layout.py tracks where the plan has each axis.
  d) head.py finds the output that depends on every param, or the outputs that `loss` names. Outputs such as labels
     stay in the file and are not in the plan. A trailing Softmax, LogSoftmax or Sigmoid becomes part of the loss.
  e) sharing.py decides whether a tensor that several nodes read is one param or several, or refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx

from ..core.plan import Plan
from ..errors import ModelError, UsageError
from . import losses, single
from .choices import Choices
from .constants import Constant, constants_of
from .export import Copied
from .faults import what_is_wrong, with_samples_named
from .folds import FOLDS
from .graph import live_order, opset_of, read_onnx, readers_of, tensor_names
from .head import choose_loss, find_heads, finish, with_reasons
from .inference import in_inference_form
from .inputs import Reading, free_samples, placed, readings
from .items import Const, Item
from .layout import OPEN
from .model import Model
from .modules import Modules
from .nodes import op_key, refuse, to_array
from .ops.table import OPS
from .report import check_choices, shared, untrained
from .sharing import Overlap, Ties, find_twins, refuse_overlaps
from .stale import note, part_from_fixed, refuse_stale, remembering
from .trace import Trace
from .unsupported import advice

# What a function of an op stumbles over where a file is malformed.
FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, StopIteration, TypeError, ValueError)
NEWEST = 24  # ONNX's opset whose ops were read through, attribute by attribute


def import_onnx(
    source: bytes, loss: losses.Given, choices: Choices, dims: Mapping[str, int], y: np.ndarray | None = None,
    *, constants: Mapping[str, Any] | None = None, only: Sequence[str] | None = None,
) -> Model:  # fmt: skip
    """Compiles the file; the options are those of `edgefl.load`. `only` names the initializers that are trained.

    Raises ModelError naming the node that can't be trained, UsageError for an option that does not fit the model.
    """
    wanted = losses.read(loss)
    proto = read_onnx(source)
    source = in_inference_form(proto, source)
    _refuse_unknown_ops(proto.graph, live_order(proto.graph), opset_of(proto))
    fixed = constants_of(proto.graph, constants or {}, dims)
    options = _Options(source, wanted, choices, dims, y, only, constants or {}, fixed)
    first: ModelError | None = None
    for reading in readings(proto.graph, dims, fixed):
        try:
            return _in_some_order(proto, reading, options)
        except ModelError as error:
            first = first or error
    assert first is not None, "readings raises an error where it finds nothing"
    raise ModelError(with_samples_named(f"{first}{_hint(proto, options)}")) from first.__cause__


def _hint(proto: onnx.ModelProto, options: _Options) -> str:
    """What to add to the error for a file whose free axis is no number of samples. With a recurrent op it counts steps,
    if any size compiles; other files keep no samples apart, and may be trained with one a run."""
    recurrent = any(node.op_type in single.SEQUENCES for node in proto.graph.node)
    for name in free_samples(proto.graph, options.fixed):
        if name in options.dims:
            break
        if recurrent and _compiles(options, {**options.dims, name: 2}):
            how = f"dims={{{name!r}: 32}} (--dim {name}=32)"
            return f"; or, if {name!r} counts the steps of a sample, say how many: {how}"
        if _compiles(options, {**options.dims, name: 1}):
            return f"; or run it on one sample at a time: dims={{{name!r}: 1}} (--dim {name}=1)"
    return ""


def _compiles(options: _Options, dims: Mapping[str, int]) -> bool:
    with suppress(ModelError, UsageError):
        import_onnx(options.source, options.loss, options.choices, dims, constants=options.constants, only=options.only)
        return True
    return False


class _Options(NamedTuple):
    source: bytes
    loss: losses.Wanted
    choices: Choices
    dims: Mapping[str, int]
    y: np.ndarray | None
    only: Sequence[str] | None
    constants: Mapping[str, Any]  # as the caller gave them
    fixed: tuple[Constant, ...]


def _in_some_order(proto: onnx.ModelProto, reading: Reading, options: _Options) -> Model:
    """Weights that nodes need in different orders are read in ONNX's own (sharing.py)."""
    plain: frozenset[int] = frozenset()
    while True:
        try:
            return _compiled(proto, reading, options, plain)
        except Overlap as overlap:
            if overlap.homes <= plain:
                raise
            plain |= overlap.homes


def _compiled(proto: onnx.ModelProto, reading: Reading, options: _Options, plain: frozenset[int]) -> Model:
    graph, choices = proto.graph, options.choices.fresh()
    order = live_order(graph)
    readers = readers_of(graph, order)
    tensors = _tensors(graph, readers)
    floats = {graph.initializer[index].name: array for index, array in tensors.items() if array.dtype == np.float32}
    trace = Trace(
        opset_of(proto), reading.batch or OPEN, readers, tensor_names(graph),
        Ties(Modules(proto, order, floats), choices), choices, plain, options.only,
    )  # fmt: skip
    trace.alone, trace.homes = reading.alone, reading.alone and reading.inputs[0].axis is not None
    items = _walk(trace, graph, order, placed(trace, reading, options.fixed) | _stored(trace, graph, tensors))
    if options.only is None:
        check_choices(choices, trace)
    heads = find_heads(trace, graph, items, options.loss)
    endings = [choose_loss(trace, head, reading, options.y) for head in heads]
    plan, owned = finish(trace, endings, reading)
    refuse_overlaps(trace.uses, trace.params, trace.origins, owned)
    refuse_stale(trace, owned)
    part_from_fixed(trace, owned)

    named = isinstance(options.loss, Mapping)

    def compiled(other: bytes, trained: Sequence[str] | None) -> Model:
        made = import_onnx(other, losses.of(endings), choices, options.dims, constants=options.constants, only=trained)
        heads = with_reasons(made.heads, endings)
        return replace(made, heads=heads, loss_inferred=options.loss is None, heads_named=named)

    return Model(
        source=options.source,
        plan=Plan.from_bytes(plan.to_bytes()),  # so the bounds that a device checks hold here already
        params=np.concatenate([trace.values[param].ravel() for param in owned]),
        bindings=[trace.bindings[param] for param in owned],
        origins=trace.origins,
        inputs=reading.inputs,
        constants=options.fixed,
        batch=reading.batch,
        alone=reading.alone,
        output_names=[output.name for output in graph.output],
        heads=tuple(endings),
        loss_inferred=options.loss is None,
        heads_named=named,
        choices=choices,
        dims=options.dims,
        untrained=untrained(trace, owned, floats),
        shared=shared(trace, owned, graph.node),
        copied=trace.twins,
        compile=compiled,
    )


def _refuse_unknown_ops(graph: onnx.GraphProto, order: list[int], opset: int) -> None:
    """Comes first, because the name of an unknown op tells an operator more than any later error."""
    for node in (graph.node[index] for index in order):
        key = op_key(node)
        if key not in OPS and key not in FOLDS:
            raise refuse(node, f"this op is not trained yet: {advice(key, 'export a model without it')}")
        _refuse_newer(node, opset)


def _refuse_newer(node: onnx.NodeProto, opset: int) -> None:
    """An attribute that a later version of an op has added would be ignored, and the model trained as another one."""
    if opset <= NEWEST or node.domain not in ("", "ai.onnx"):
        return
    known = onnx.defs.get_schema(node.op_type, NEWEST).attributes
    for attribute in node.attribute:
        if attribute.name not in known:
            raise refuse(node, f"its {attribute.name} is newer than opset {NEWEST}: export with opset {NEWEST}")


def _tensors(graph: onnx.GraphProto, readers: Mapping[str, int]) -> dict[int, np.ndarray]:
    """The initializers that are read, by number."""
    return {
        index: to_array(tensor, f"initializer {tensor.name!r}")
        for index, tensor in enumerate(graph.initializer)
        if tensor.name in readers
    }


def _stored(trace: Trace, graph: onnx.GraphProto, tensors: Mapping[int, np.ndarray]) -> dict[str, Item]:
    """The initializers by name. One that was made from another one has its positions in the file."""
    found = {index: trace.stored(array, None, index, graph.initializer[index].name) for index, array in tensors.items()}
    floats = {index: (found[index].name, array) for index, array in tensors.items() if array.dtype == np.float32}
    for twin in find_twins(floats, trace.choices, trace.ties.is_pytorch):
        base, copy = found[twin.base], found[twin.twin]
        assert base.where is not None and copy.where is not None
        where = base.where.T if twin.transposed else base.where
        begin = int(copy.where.flat[0])
        trace.twins.append(Copied(slice(begin, begin + copy.where.size), where.ravel()))
        found[twin.twin] = replace(copy, where=where, name=base.name, alias=copy.name)
    return {graph.initializer[index].name: item for index, item in found.items()}


def _walk(trace: Trace, graph: onnx.GraphProto, order: list[int], items: dict[str, Item]) -> dict[str, Item]:
    """Every live tensor by name, as an Item."""
    for index in order:
        trace.index = index
        made = _apply(trace, graph.node[index], items)
        items.update(zip(graph.node[index].output, made, strict=False))
    return items


def _apply(trace: Trace, node: onnx.NodeProto, items: dict[str, Item]) -> tuple[Item, ...]:
    """The outputs of one node."""
    missing = next((name for name in node.input if name and name not in items), None)
    if missing is not None:
        raise refuse(node, f"it reads {missing!r}, which EdgeFL does not follow: leave it out of the export")
    alone = trace.alone
    inputs = [single.given(node, items.get(name)) if alone else items.get(name) for name in node.input]
    constant = all(item is None or isinstance(item, Const) for item in inputs)
    handler = (FOLDS if constant else OPS).get(op_key(node))
    if handler is None:
        what = "constants" if constant else "activations"
        remedy = advice(op_key(node), "export the model with constants folded")
        raise refuse(node, f"its use on {what} is not trained yet: {remedy}")
    try:
        made = handler(trace, node, *inputs)
    except FAULTS as error:
        raise refuse(node, f"malformed, {what_is_wrong(node, inputs, trace.opset)}") from error
    outputs = made if isinstance(made, tuple) else (made,)
    if constant:
        outputs = tuple(remembering(trace, node, inputs, item) if isinstance(item, Const) else item for item in outputs)
    else:
        note(trace, node, inputs)
    return tuple(single.made(item) for item in outputs) if alone else outputs
