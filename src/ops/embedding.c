/* embedding.c: y(..., D) = the rows of W(V, D) that the tokens x(...) name.
 *
 * fit.c checked the tokens where the caller has them. A caller that changes them while the net works may train
 * nonsense, but reaches no memory beyond W: an invalid token is taken as 0. */
#include "ops.h"

#include <string.h>

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *w = &s->w[0];
    if (w->ndim != 2) return efl_fail(error, EFL_MODEL, "needs a weight (V, D)");
    /* float32 holds every whole number up to there */
    if (w->dim[0] > 1 << 24) return efl_fail(error, EFL_MODEL, "needs a vocabulary of at most 2^24");
    if (x->ndim >= EFL_MAX_DIMS) return efl_fail(error, EFL_MODEL, "needs tokens with fewer than 6 axes");
    s->y = *x;
    s->y.dim[s->y.ndim++] = w->dim[1];
    return EFL_OK;
}

static int64_t row_of(float token, int64_t vocabulary) {
    return token >= 0 && token < (float)vocabulary ? (int64_t)token : 0;
}

static void forward(const efl_op_run *run) {
    const int64_t vocabulary = run->shapes->w[0].dim[0], width = run->shapes->w[0].dim[1];
    const int64_t tokens = run->batch * efl_shape_size(&run->shapes->x[0]);
    for (int64_t i = 0; i < tokens; i++)
        memcpy(run->y + i * width, run->w[0] + row_of(run->x[0][i], vocabulary) * width,
               (size_t)width * sizeof *run->y);
}

static void backward(const efl_op_run *run) {
    const int64_t vocabulary = run->shapes->w[0].dim[0], width = run->shapes->w[0].dim[1];
    const int64_t tokens = run->batch * efl_shape_size(&run->shapes->x[0]);
    for (int64_t i = 0; run->dw[0] != NULL && i < tokens; i++)
        efl_kernels->add(run->dw[0] + row_of(run->x[0][i], vocabulary) * width, run->dy + i * width, width);
}

const efl_op efl_op_embedding = {
    .name = "embedding",
    .flags = EFL_READS_X | EFL_X_FOR_W | EFL_TAKES_TOKENS | EFL_BY_SAMPLES,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 1,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
