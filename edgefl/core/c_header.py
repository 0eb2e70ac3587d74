"""A plan and its params as C, for a core without Python around it (docs/microcontroller.md).

The header has three things: the ops and losses that the plan names, as lists that src/ops/table.c reads, so that
the linker drops all others; the plan as src/efl.h takes it; and the params. Not here: the examples, which are the
program's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..errors import UsageError
from .plan import Node, Plan

WIDTH = 120


def c_header(plan: Plan, params: NDArray[np.float32], *, name: str = "model", batch: int = 1) -> str:
    """The text of the header, for a net of `batch` samples; `name` stands in its first line. ModelError if the core
    would refuse the plan, UsageError for params that are no numbers or not the plan's."""
    if params.shape != (plan.num_params,) or not np.isfinite(params).all():
        raise UsageError(f"params are not {plan.num_params} finite numbers: save the model again")
    arena, _, _ = _core.plan_needs(plan, batch)  # which proves that all ops exist and all attributes are finite
    losses = [head.loss for head in plan.losses] if plan.losses else [plan.loss]
    nodes = [*_joined([_node(node) for node in plan.nodes], "static const efl_node efl_model_nodes[]")]
    tensors = [
        f"{{{_shape(param.shape)}, {int(param.trainable)}}}, /* {_plain(param.name)} */" for param in plan.params
    ]
    numbers = [f"{value:.8e}f" for value in params.tolist()]
    return "\n".join([
        f"/* {_plain(name)}, as `edgefl inspect --c-header` wrote it. Plan {plan.hash}.",
        " * Build the core with -DEFL_PROFILE_SMALL and -DEFL_PLAN_HEADER='\"THIS FILE\"'. */",
        "#ifndef EFL_MODEL_H",
        "#define EFL_MODEL_H",
        "",
        '#include "efl.h"',
        "",
        "/* The core's tables have these alone. */",
        f"#define EFL_PLAN_OPS(op) {_named('op', [node.op for node in plan.nodes])}",
        f"#define EFL_PLAN_LOSSES(loss) {_named('loss', losses)}",
        "",
        f"#define EFL_MODEL_BATCH {batch}",
        f"#define EFL_MODEL_ARENA_BYTES {arena} /* of efl_net_new with this batch */",
        f"#define EFL_MODEL_NUM_PARAMS {plan.num_params}",
        f"#define EFL_MODEL_INPUT_SIZE {math.prod(plan.input_shape)} /* numbers of a sample */",
        "",
        *nodes,
        "",
        *_block("static const efl_param efl_model_tensors[]", tensors),
        "",
        *_plan(plan),
        "",
        "/* What training starts from. */",
        *_joined(numbers, "static const float efl_model_params[]"),
        "",
        "#endif",
        "",
    ])  # fmt: skip


def _plan(plan: Plan) -> list[str]:
    """The efl_plan, behind the losses that it points to if there are several."""
    heads = [f'{{"{head.loss}", {head.input}, {head.weight!r}}},' for head in plan.losses or []]
    fields = [
        f".input = {_shape(plan.input_shape)}",
        f".num_nodes = {len(plan.nodes)}",
        f".num_params = {len(plan.params)}",
        ".nodes = efl_model_nodes",
        ".params = efl_model_tensors",
        f'.loss = "{plan.loss}"',
        f".loss_input = {plan.loss_input}",
        f".output = {plan.output}",
    ]
    lines = _block("static const efl_plan_loss efl_model_losses[]", heads) if heads else []
    fields += [f".num_losses = {len(heads)}", ".losses = efl_model_losses"] if heads else []
    return [*lines, *_block("static const efl_plan efl_model_plan", [f"{field}," for field in fields])]


def _node(node: Node) -> str:
    """The initializer of an efl_node."""
    lists = {
        "inputs": [str(value) for value in node.inputs],
        "params": [str(value) for value in node.params],
        "ints": [str(value) if abs(value) < 2**31 else f"{value}LL" for value in node.ints],
        "floats": [repr(float(value)) for value in node.floats],
    }
    fields = [f'.op = "{node.op}"']
    fields += [f".num_{key} = {len(texts)}, .{key} = {{{', '.join(texts)}}}" for key, texts in lists.items() if texts]
    return f"{{{', '.join(fields)}}}"


def _named(macro: str, names: Iterable[str]) -> str:
    return " ".join(f"{macro}({name})" for name in sorted(set(names)))


def _shape(shape: Sequence[int]) -> str:
    return f"{{{len(shape)}, {{{', '.join(map(str, shape)) or 0}}}}}"


def _plain(text: str) -> str:
    """A name of the model's file, which may be any text, inside a comment."""
    return re.sub(r"[^A-Za-z0-9_.:/ -]", "?", text)[:80]


def _block(head: str, lines: list[str]) -> list[str]:
    return [f"{head} = {{", *(f"    {line}" for line in lines or ["0"]), "};"]


def _joined(texts: list[str], head: str) -> list[str]:
    """As many on a line as fit."""
    lines = [""]
    for text in texts:
        if lines[-1] and len(lines[-1]) + len(text) + 6 > WIDTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{text},"
    return _block(head, lines)
