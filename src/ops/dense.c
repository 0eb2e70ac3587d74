/* dense.c: y(..., O) = x(..., I) W(I, O) + b(O) along the last axis. Params: W, and b or not. */
#include "ops.h"

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *w = &s->w[0], *b = &s->w[1];
    if (x->ndim < 1 || w->ndim != 2 || w->dim[0] != x->dim[x->ndim - 1])
        return efl_fail(error, EFL_MODEL, "needs a weight (I, O), I the input's last axis");
    if (s->node->num_params == 2 && (b->ndim != 1 || b->dim[0] != w->dim[1]))
        return efl_fail(error, EFL_MODEL, "needs a bias (O) for its weight (I, O)");
    s->y = *x;
    s->y.dim[x->ndim - 1] = w->dim[1];
    s->flops = 2 * efl_shape_size(x) * w->dim[1];
    return EFL_OK;
}

/* Leading axes are more rows. */
static int64_t rows(const efl_op_run *run) {
    const efl_shape *x = &run->shapes->x[0];
    return run->batch * (efl_shape_size(x) / x->dim[x->ndim - 1]);
}

static void forward(const efl_op_run *run) {
    const int64_t in = run->shapes->w[0].dim[0], out = run->shapes->w[0].dim[1];
    efl_kernels->gemm(run->y, run->x[0], in, 1, run->w[0], run->w[1], rows(run), out, in, 0);
}

static void backward(const efl_op_run *run) {
    const int64_t in = run->shapes->w[0].dim[0], out = run->shapes->w[0].dim[1], m = rows(run);
    if (run->dx[0] != NULL) efl_kernels->gemm_nt(run->dx[0], run->dy, run->w[0], m, in, out);
    const efl_update *u = run->update;
    if (u != NULL) efl_kernels->gemm_update(u->w, u->v, u->w0, run->x[0], 1, in, run->dy, u->sgd, in, out, m);
    if (run->dw[0] != NULL) efl_kernels->gemm(run->dw[0], run->x[0], 1, in, run->dy, NULL, in, out, m, 1);
    if (run->dw[1] != NULL) efl_kernels->add_rows(run->dw[1], run->dy, m, out);
}

const efl_op efl_op_dense = {
    .name = "dense",
    .flags = EFL_READS_X | EFL_FUSES,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 2,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
