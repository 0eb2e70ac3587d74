/* condition.c: what depends on whether a number is above 0. No gradient goes through that number.
 *
 *     step  y = floats[0] where x > 0, and floats[1] elsewhere
 *     keep  y = x[0] where x[1] > 0, and floats[0] elsewhere; x[1]'s shape broadcasts to x[0]'s. What is not kept has
 * no gradient: a mask of padding, which each sample has for itself.
 */
#include "walk.h"

#include <math.h>
#include <string.h>

static int infer_step(efl_op_shapes *s, efl_error *error) {
    for (int i = 0; i < 2; i++)
        if (!isfinite((float)s->node->floats[i])) return efl_fail(error, EFL_MODEL, "needs two finite numbers");
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    return EFL_OK;
}

static void forward_step(const efl_op_run *run) {
    const float above = (float)run->shapes->node->floats[0], other = (float)run->shapes->node->floats[1];
    const int64_t size = run->batch * efl_shape_size(&run->shapes->y);
    for (int64_t i = 0; i < size; i++) run->y[i] = run->x[0][i] > 0 ? above : other;
}

static void backward_step(const efl_op_run *run) {
    const int64_t size = run->batch * efl_shape_size(&run->shapes->y);
    if (run->dx[0] != NULL) memset(run->dx[0], 0, (size_t)size * sizeof *run->dx[0]);
}

const efl_op efl_op_step = {.name = "step",
                            .flags = EFL_IN_PLACE | EFL_BY_SAMPLES,
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .num_floats = 2,
                            .infer = infer_step,
                            .forward = forward_step,
                            .backward = backward_step};

static int infer_keep(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *c = &s->x[1];
    if (!isfinite((float)s->node->floats[0])) return efl_fail(error, EFL_MODEL, "needs a finite number to fill in");
    for (int i = 1; i <= c->ndim; i++)
        if (c->ndim > x->ndim || (c->dim[c->ndim - i] != 1 && c->dim[c->ndim - i] != x->dim[x->ndim - i]))
            return efl_fail(error, EFL_MODEL, "needs a second input that broadcasts to the first one's shape");
    s->y = *x;
    s->flops = efl_shape_size(&s->y);
    s->saved.per_sample = efl_shape_size(c); /* x[1], so that x[0] need not outlive forward */
    return EFL_OK;
}

static void keep_above(float *to, const float *from, const float *by, int64_t step, float fill, int64_t n) {
    for (int64_t j = 0; j < n; j++) to[j] = by[j * step] > 0 ? from[j] : fill;
}

/* to = from where what was saved of x[1] is above 0. */
static void keep(const efl_op_run *run, float *to, const float *from, float fill) {
    const efl_keeping keeping = {run->saved, &run->shapes->x[1], 1, keep_above};
    efl_walk_keep(run, to, from, &keeping, fill);
}

static void forward_keep(const efl_op_run *run) {
    const int64_t size = run->batch * efl_shape_size(&run->shapes->x[1]);
    memcpy(run->saved, run->x[1], (size_t)size * sizeof *run->saved);
    keep(run, run->y, run->x[0], (float)run->shapes->node->floats[0]);
}

static void backward_keep(const efl_op_run *run) {
    const int64_t size = run->batch * efl_shape_size(&run->shapes->x[1]);
    if (run->dx[0] != NULL) keep(run, run->dx[0], run->dy, 0);
    if (run->dx[1] != NULL) memset(run->dx[1], 0, (size_t)size * sizeof *run->dx[1]);
}

const efl_op efl_op_keep = {.name = "keep",
                            .flags = EFL_IN_PLACE | EFL_BY_SAMPLES,
                            .min_inputs = 2,
                            .max_inputs = 2,
                            .num_floats = 1,
                            .infer = infer_keep,
                            .forward = forward_keep,
                            .backward = backward_keep};
