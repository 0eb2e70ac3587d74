"""What a model consists of, for `edgefl inspect`. Shapes, FLOPs and arena come from the core."""

from __future__ import annotations

from typing import Any

from .. import _core
from ..core.mask import Mask, unchanging
from ..core.plan import Plan
from .model import Model
from .untrained import FROZEN, MEASURED

NAMED = 4  # of several tensors in a line


def summarize(subject: Model | Plan, batch: int = 32) -> dict[str, Any]:
    """Everything `describe` says, as JSON types: sizes in bytes, shapes and forward FLOPs per sample.

    `batch` is the number of samples that the training arena is sized for; what only the ONNX file knows is None
    for a Plan. Raises ModelError for a plan that the core refuses.
    """
    model, plan = (subject, subject.plan) if isinstance(subject, Model) else (None, subject)
    net = _core.Net(plan, 1)  # for its shapes; `plan_needs` computes the arena without allocating it
    arena_bytes, least_bytes, _ = _core.plan_needs(plan, batch)
    shapes = [list(shape) for shape in net.shapes]
    return {
        "input": {
            "name": model.input_name if model else None,
            "shape": list(plan.input_shape),
            "dtype": plan.input_dtype,
        },
        "inputs": [{"name": each.name, "shape": each.shape, "dtype": each.dtype} for each in plan.inputs or []],
        "constants": [
            {"name": each.name, "value": each.text, "inferred": each.inferred}
            for each in (model.constants if model else ())
        ],
        "output": {"names": model.output_names if model else None, "shape": shapes[plan.output]},
        "nodes": [_node(plan, number, shapes, net.flops[number - 1]) for number in range(1, len(plan.nodes) + 1)],
        "num_params": plan.num_params,
        "num_trainable": plan.num_trainable,
        "flops": sum(net.flops),
        "untrained": _untrained(model) if model else None,
        "shared": _shared(model) if model else None,
        "without_adapter": dict(model.adapters.plain) if model and model.adapters else None,
        "loss": plan.loss,
        "losses": [{"output": head.name, "loss": head.loss, "weight": head.weight} for head in plan.losses or []],
        "loss_inferred": model.loss_inferred if model else None,
        "loss_why": model.loss_why if model else None,
        "batch": batch,
        "arena_bytes": arena_bytes,
        "least_arena_bytes": least_bytes,
        "update_bytes_raw32": 4 * Mask(plan, base=unchanging(plan)).num_shared,
        "plan_hash": plan.hash,
    }


def _untrained(model: Model) -> list[dict[str, Any]]:
    return [
        {"name": item.name, "shape": list(item.shape), "reason": item.reason, "can_train": item.can_train}
        for item in model.untrained
    ]


def _shared(model: Model) -> list[dict[str, Any]]:
    return [{"name": item.name, "nodes": list(item.nodes), "kind": item.kind} for item in model.shared]


def _node(plan: Plan, number: int, shapes: list[list[int]], flops: int) -> dict[str, Any]:
    """The node that makes value `number`; a param that several nodes read counts for the first."""
    node = plan.nodes[number - 1]
    params = [plan.params[index] for index in node.params]
    counted = {index for earlier in plan.nodes[: number - 1] for index in earlier.params}
    return {
        "op": node.op,
        "input_shapes": [shapes[value] for value in node.inputs],
        "output_shape": shapes[number],
        "params": [param.name for param in params],
        "num_params": sum(plan.params[index].size for index in {*node.params} - counted),
        "flops": flops,
        "trains": any(param.trainable for param in params),
    }


def describe(subject: Model | Plan, batch: int = 32) -> str:
    """The same as text: one line for each node, then the totals."""
    found = summarize(subject, batch)
    loss = subject.loss_line if isinstance(subject, Model) else subject.loss
    return "\n".join(
        [
            *_inputs(found["inputs"] or [found["input"]]),
            *_constants(found["constants"]),
            *_table(found["nodes"]),
            f"params  {found['num_params']:,}, of which {found['num_trainable']:,} train",
            f"FLOPs   {found['flops']:,} a sample, forward",
            f"loss    {loss}",
            f"update  {found['update_bytes_raw32']:,} bytes as raw32",
            f"arena   {found['arena_bytes']:,} bytes at batch {batch}; at least {found['least_arena_bytes']:,}, by "
            "computing activations again",
            *_told(found),
        ]
    )


def _inputs(found: list[dict[str, Any]]) -> list[str]:
    """A line for each input of the model."""
    lines = []
    for each in found:
        name = "" if each["name"] is None else f"{each['name']!r} "
        lines.append(f"input   {name}{each['dtype']} {_shape(each['shape'])} a sample")
    return lines


def _constants(found: list[dict[str, Any]]) -> list[str]:
    """A line for each input of the file that is the same for every sample."""
    why = {True: "an initial state, and zeros unless --constant says otherwise", False: "as --constant says"}
    return [f"input   {each['name']!r} is {each['value']} for every sample: {why[each['inferred']]}" for each in found]


def _told(found: dict[str, Any]) -> list[str]:
    """What does not train, and which params are read in several places."""
    lines, untrained = [], found["untrained"] or []
    for reason in (FROZEN, MEASURED):
        names = [item["name"] for item in untrained if item["reason"] == reason]
        if names:
            lines.append(f"stays   {_some(names)}: {reason}")
    for item in untrained:
        if item["reason"] in (FROZEN, MEASURED):
            continue
        hint = f"; --train {item['name']} trains it" if item["can_train"] else ""
        size = _shape(item["shape"]) or "1 number"
        lines.append(f"stays   {item['name']} ({size}): {item['reason']}{hint}")
    lines += [f"plain   {name}: no adapter, since it {why}" for name, why in (found["without_adapter"] or {}).items()]
    for item in found["shared"] or ():
        if item["kind"] == "tied":
            lines.append(f"tied    {item['name']}: one param of {', '.join(item['nodes'])}; --untie trains them apart")
    for kind, what in (("copy", "layers that began equal"), ("fresh", "tensors of equal numbers")):
        names = [item["name"] for item in found["shared"] or () if item["kind"] == kind]
        if names:
            lines.append(f"apart   {_some(names)}: of {what}, which the file stores once; --tie trains them as one")
    return lines


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _table(nodes: list[dict[str, Any]]) -> list[str]:
    rows = [("op", "in", "out", "params", "FLOPs", "trains")]
    for node in nodes:
        inputs = " ".join(_shape(shape) for shape in node["input_shapes"])
        sizes = f"{node['num_params']:,}", f"{node['flops']:,}"
        trains = ", ".join(node["params"]) if node["trains"] else "-"
        rows.append((node["op"], inputs, _shape(node["output_shape"]), *sizes, trains))
    op, *numbers, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return ["  ".join([name.ljust(op), *map(str.rjust, cells, numbers), trains]) for name, *cells, trains in rows]


def _shape(shape: list[int]) -> str:
    return "x".join(map(str, shape))
