/* expand.c: values that repeat.
 *
 * expand   y is x, repeated along axes of one. Ints: y's dims, as many as x has.
 * repeat   y is the param w in each sample; x[0] says how many samples there are, and is not read.
 */
#include "walk.h"

#include <string.h>

static int infer_expand(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0];
    if (s->node->num_ints != x->ndim) return efl_fail(error, EFL_MODEL, "needs a size for each axis of its input");
    s->y.ndim = x->ndim;
    for (int i = 0; i < x->ndim; i++) {
        s->y.dim[i] = s->node->ints[i];
        if (x->dim[i] != 1 && s->y.dim[i] != x->dim[i])
            return efl_fail(error, EFL_MODEL, "needs an axis of one wherever it repeats");
    }
    if (efl_shape_size(&s->y) < 0) return efl_fail(error, EFL_MODEL, "makes a value that is empty or too large");
    return EFL_OK;
}

static void forward_expand(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    efl_walk walk = efl_walk_over(run->batch, &s->y);
    efl_walk_array(&walk, &s->y, 1);
    efl_walk_array(&walk, &s->x[0], 1);
    efl_walk_pack(&walk);
    efl_walk_copy(&walk, run->y, run->x[0]);
}

static void backward_expand(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    if (run->dx[0] == NULL) return;
    efl_walk walk = efl_walk_over(run->batch, &s->y);
    efl_walk_array(&walk, &s->x[0], 1);
    efl_walk_array(&walk, &s->y, 1);
    efl_walk_pack(&walk);
    memset(run->dx[0], 0, (size_t)(run->batch * efl_shape_size(&s->x[0])) * sizeof(float));
    efl_walk_sum(&walk, run->dx[0], run->dy);
}

static int infer_repeat(efl_op_shapes *s, efl_error *error) {
    (void)error;
    s->y = s->w[0];
    return EFL_OK;
}

static void forward_repeat(const efl_op_run *run) {
    const int64_t size = efl_shape_size(&run->shapes->y);
    for (int64_t b = 0; b < run->batch; b++) memcpy(run->y + b * size, run->w[0], (size_t)size * sizeof *run->y);
}

static void backward_repeat(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    if (run->dw[0] != NULL) efl_kernels->add_rows(run->dw[0], run->dy, run->batch, efl_shape_size(&s->y));
    if (run->dx[0] != NULL) memset(run->dx[0], 0, (size_t)(run->batch * efl_shape_size(&s->x[0])) * sizeof *run->dx[0]);
}

const efl_op efl_op_expand = {.name = "expand",
                              .flags = EFL_BY_SAMPLES,
                              .min_inputs = 1,
                              .max_inputs = 1,
                              .num_ints = -1,
                              .infer = infer_expand,
                              .forward = forward_expand,
                              .backward = backward_expand};

const efl_op efl_op_repeat = {.name = "repeat",
                              .flags = EFL_BY_SAMPLES,
                              .min_inputs = 1,
                              .max_inputs = 1,
                              .min_params = 1,
                              .max_params = 1,
                              .infer = infer_repeat,
                              .forward = forward_repeat,
                              .backward = backward_repeat};
