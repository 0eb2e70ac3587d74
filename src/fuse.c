/* fuse.c: nodes that the node before them computes along with its own, so that a value is gone through once, not twice.
 *
 * relu and clip become part of a node whose result they overwrite, where its op can apply them (efl_op_shapes.clamps).
 * The fused node is then another name for that result, as a reshape is. The plan does not change, and all that is
 * computed has the same formulas; efl_plan.apart leaves every node to itself, and tests compare the two.
 */
#include "net.h"

#include <math.h>

static const efl_op fused = {.name = "fused", .flags = EFL_ALIAS};

/* 0 if the node limits nothing. */
static int limits(const efl_step *step, efl_clamp *clamp) {
    if (efl_op_is(step->op, "relu"))
        *clamp = (efl_clamp){0, INFINITY};
    else if (efl_op_is(step->op, "clip"))
        *clamp = (efl_clamp){(float)step->node.floats[0], (float)step->node.floats[1]};
    else
        return 0;
    return 1;
}

/* compile.c lets a node overwrite what no other node reads. */
static int overwrites(const efl_net *net, int i) {
    const int input = net->steps[i].node.inputs[0];
    return input > 0 && net->values[i + 1].storage == net->values[input].storage;
}

/* A bit an element (ops/bits.c) is less than a whole y. */
static int takes(const efl_step *before, const efl_step *step) {
    if (before->clamps || !before->shapes.clamps) return 0;
    return before->shapes.clamps != EFL_READS_Y || !(step->flags & EFL_BITS);
}

void efl_fuse(efl_net *net) {
    for (int i = 0; i < net->num_steps; i++) {
        efl_step *step = &net->steps[i];
        efl_clamp clamp;
        if (!limits(step, &clamp) || !overwrites(net, i)) continue;
        efl_step *before = &net->steps[step->node.inputs[0] - 1];
        if (!takes(before, step)) continue;
        if (before->trains != step->trains || before->predicts != step->predicts) continue;
        before->clamps = 1;
        before->flags |= before->shapes.clamps;
        before->clamp = clamp;
        step->op = &fused;
        step->flags = EFL_ALIAS;
        step->shapes.saved = (efl_room){0, 0};
    }
}
