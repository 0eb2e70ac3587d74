"""A plan as a C header (core/c_header.py): a program that includes it has the very plan and the very params."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT

from edgefl import Trainer
from edgefl.core.c_header import c_header
from edgefl.core.plan import Head, Node, Param, Plan
from edgefl.errors import ModelError, UsageError

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

# Says the plan field by field, and then the params as hexadecimal bits.
PROGRAM = r"""
#include "model.h"
#include <stdio.h>
#include <string.h>
#define LIST(x) #x " "
static void say(const efl_shape *s) {
    printf("[");
    for (int i = 0; i < s->ndim; i++) printf("%s%lld", i ? ", " : "", (long long)s->dim[i]);
    printf("]\n");
}
int main(void) {
    const efl_plan *p = &efl_model_plan;
    puts(EFL_PLAN_OPS(LIST) "/ " EFL_PLAN_LOSSES(LIST));
    printf("%d %d %d\n", EFL_MODEL_BATCH, EFL_MODEL_ARENA_BYTES, EFL_MODEL_INPUT_SIZE);
    say(&p->input);
    for (int i = 0; i < p->num_nodes; i++) {
        const efl_node *n = &p->nodes[i];
        printf("%s", n->op);
        for (int k = 0; k < n->num_inputs; k++) printf(" i%d", n->inputs[k]);
        for (int k = 0; k < n->num_params; k++) printf(" p%d", n->params[k]);
        for (int k = 0; k < n->num_ints; k++) printf(" %lld", (long long)n->ints[k]);
        for (int k = 0; k < n->num_floats; k++) printf(" %a", n->floats[k]);
        puts("");
    }
    for (int i = 0; i < p->num_params; i++) {
        printf("%d ", p->params[i].trainable);
        say(&p->params[i].shape);
    }
    printf("%s %d %d\n", p->loss, p->loss_input, p->output);
    for (int i = 0; i < p->num_losses; i++)
        printf("%s %d %a\n", p->losses[i].name, p->losses[i].input, p->losses[i].weight);
    for (int i = 0; i < EFL_MODEL_NUM_PARAMS; i++) {
        unsigned bits;
        memcpy(&bits, &efl_model_params[i], 4);
        printf("%08x\n", bits);
    }
    return 0;
}
"""


def hexadecimal(value: float) -> str:
    """As C's %a."""
    mantissa, _, exponent = float(value).hex().partition("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}"


def expected(plan: Plan, params: np.ndarray, batch: int) -> list[str]:
    losses = [head.loss for head in plan.losses] if plan.losses else [plan.loss]
    lines = [" ".join([*sorted({node.op for node in plan.nodes}), "/", *sorted(set(losses))]) + " "]
    lines += [f"{batch} {Trainer(plan, batch=batch).arena_bytes} {np.prod(plan.input_shape)}", str(plan.input_shape)]
    for node in plan.nodes:
        numbers = [*map(str, node.ints), *map(hexadecimal, node.floats)]
        lines.append(" ".join([node.op, *(f"i{i}" for i in node.inputs), *(f"p{i}" for i in node.params), *numbers]))
    lines += [f"{int(param.trainable)} {param.shape}" for param in plan.params]
    lines.append(f"{plan.loss} {plan.loss_input} {plan.output}")
    lines += [f"{head.loss} {head.input} {hexadecimal(head.weight)}" for head in plan.losses or []]
    return [*lines, *(f"{bits:08x}" for bits in params.view(np.uint32))]


def said(header: str, folder) -> list[str]:
    (folder / "model.h").write_text(header)
    (folder / "main.c").write_text(PROGRAM)
    program = folder / "main"
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'src'}", f"-I{folder}", folder / "main.c",
         "-o", program],
        check=True,
    )  # fmt: skip
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


DENSE = Plan(
    [4],
    [Node("dense", [0], [0, 1]), Node("clip", [1], floats=[-0.1, 1e30]), Node("dense", [2], [2])],
    [Param("a/*\\\n*/ weight", [4, 3]), Param("b", [3]), Param("é" * 200, [3, 2], False)],
    "cross_entropy",
    3,
    3,
)
CONV = Plan(
    [4, 4, 1],
    [Node("conv", [0], [0], [1, 1, 1, 1, 1, 1, 1, 1, 1]), Node("flatten", [1]), Node("dense", [2], [1])],
    [Param("w", [3, 3, 1, 2]), Param("v", [32, 1])],
    "mse",
    3,
    3,
)
TWO = Plan(
    [3],
    [Node("dense", [0], [0]), Node("dense", [0], [1]), Node("concat", [1, 2], ints=[0])],
    [Param("a", [3, 2]), Param("b", [3, 1])],
    "cross_entropy",
    1,
    3,
    losses=[Head("kind", "cross_entropy", 1, 1.0, [2]), Head("age", "mse", 2, 0.1, [1])],
)


@pytest.mark.parametrize("plan", [DENSE, CONV, TWO], ids=["dense", "conv", "two losses"])
@pytest.mark.parametrize("batch", [1, 7])
def test_a_program_has_the_plan_to_the_bit(plan, batch, tmp_path):
    params = np.random.default_rng(1).standard_normal(plan.num_params).astype(np.float32)
    params[:4] = 1, -0.0, 1e-42, 3.4028235e38
    assert said(c_header(plan, params, batch=batch), tmp_path) == expected(plan, params, batch)


def test_a_name_cannot_leave_its_comment():
    header = c_header(DENSE, np.zeros(DENSE.num_params, np.float32), name="*/ evil\n")
    assert header.startswith("/* ?/ evil?, as")
    assert "/* a/????/ weight */\n" in header
    assert all(len(line) <= 170 for line in header.splitlines())


def test_params_that_are_no_numbers_are_refused():
    params = np.zeros(DENSE.num_params, np.float32)
    params[3] = np.nan
    with pytest.raises(UsageError, match="finite"):
        c_header(DENSE, params)
    with pytest.raises(UsageError, match="finite"):
        c_header(DENSE, params[1:])


def test_a_plan_that_the_core_refuses_is_refused():
    plan = Plan([4], [Node("dense); evil(", [0], [0])], [Param("w", [4, 2])], "mse", 1, 1)
    with pytest.raises(ModelError, match="no such op"):
        c_header(plan, np.zeros(8, np.float32))
