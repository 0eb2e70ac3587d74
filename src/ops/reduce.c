/* reduce.c: mean over per-sample axes, which disappear. Ints: the axes, ascending. All of them make a scalar. */
#include "walk.h"

#include <string.h>

/* x's shape with the reduced axes as 1, which broadcasts to x. */
static efl_shape kept(const efl_op_shapes *s) {
    efl_shape shape = s->x[0];
    for (int i = 0; i < s->node->num_ints; i++) shape.dim[s->node->ints[i]] = 1;
    return shape;
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_node *node = s->node;
    if (node->num_ints < 1) return efl_fail(error, EFL_MODEL, "needs an axis");
    for (int i = 0; i < node->num_ints; i++)
        if (node->ints[i] < (i ? node->ints[i - 1] + 1 : 0) || node->ints[i] >= s->x[0].ndim)
            return efl_fail(error, EFL_MODEL, "needs ascending axes of its input");
    for (int i = 0, next = 0; i < s->x[0].ndim; i++) {
        if (next < node->num_ints && node->ints[next] == i)
            next++;
        else
            s->y.dim[s->y.ndim++] = s->x[0].dim[i];
    }
    s->flops = efl_shape_size(&s->x[0]);
    s->inner[0] = s->flops / efl_shape_size(&s->y);
    return EFL_OK;
}

static void forward(const efl_op_run *run) {
    const efl_shape *x = &run->shapes->x[0], narrow = kept(run->shapes);
    const int64_t size = run->batch * efl_shape_size(&run->shapes->y);
    const float count = (float)run->shapes->inner[0];
    efl_walk walk = efl_walk_over(run->batch, x);
    efl_walk_array(&walk, &narrow, 1);
    efl_walk_array(&walk, x, 1);
    efl_walk_pack(&walk);
    memset(run->y, 0, (size_t)size * sizeof *run->y);
    efl_walk_sum(&walk, run->y, run->x[0]);
    efl_kernels->arithmetic(EFL_DIV, run->y, run->y, 0, 1, &count, 0, 0, 1, size);
}

static void backward(const efl_op_run *run) {
    const efl_shape *x = &run->shapes->x[0], narrow = kept(run->shapes);
    const float count = (float)run->shapes->inner[0];
    efl_walk walk = efl_walk_over(run->batch, x);
    efl_walk_array(&walk, x, 1);
    efl_walk_array(&walk, &narrow, 1);
    efl_walk_pack(&walk);
    const int row = walk.ndim - 2, col = walk.ndim - 1;
    do {
        efl_kernels->arithmetic(EFL_DIV, run->dx[0] + walk.at[0], run->dy + walk.at[1], walk.step[1][row],
                                walk.step[1][col], &count, 0, 0, walk.m, walk.n);
    } while (efl_walk_next(&walk));
}

const efl_op efl_op_mean = {.name = "mean",
                            .flags = EFL_BY_SAMPLES,
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .num_ints = -1,
                            .infer = infer,
                            .forward = forward,
                            .backward = backward};
