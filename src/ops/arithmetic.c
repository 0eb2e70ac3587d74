/* arithmetic.c: add (two values of one shape) and flatten (one axis; a new name for the same memory). */
#include "ops.h"

#include <string.h>

static int64_t elements(const efl_op_run *run) {
    return run->batch * efl_shape_size(&run->shapes->y);
}

static int infer_add(efl_op_shapes *s, efl_error *error) {
    const size_t used = (size_t)s->x[0].ndim * sizeof s->x[0].dim[0];
    if (s->x[0].ndim != s->x[1].ndim || memcmp(s->x[0].dim, s->x[1].dim, used) != 0)
        return efl_fail(error, EFL_MODEL, "needs two inputs of the same shape");
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    return EFL_OK;
}

static void forward_add(const efl_op_run *run) {
    memcpy(run->y, run->x[0], (size_t)elements(run) * sizeof *run->y);
    efl_kernels->add(run->y, run->x[1], elements(run));
}

static void backward_add(const efl_op_run *run) {
    for (int i = 0; i < 2; i++)
        if (run->dx[i] != NULL) memcpy(run->dx[i], run->dy, (size_t)elements(run) * sizeof *run->dy);
}

const efl_op efl_op_add = {
    .name = "add", .min_inputs = 2, .max_inputs = 2, .infer = infer_add, .forward = forward_add, .backward = backward_add};

static int infer_flatten(efl_op_shapes *s, efl_error *error) {
    (void)error;
    s->y = (efl_shape){.ndim = 1, .dim = {efl_shape_size(&s->x[0])}};
    s->flops = 0;
    return EFL_OK;
}

const efl_op efl_op_flatten = {.name = "flatten", .flags = EFL_ALIAS, .min_inputs = 1, .max_inputs = 1, .infer = infer_flatten};
