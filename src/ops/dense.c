/* dense.c: y(..., O) = x(..., I) W(I, O) + b(O) along the last axis. Params: W, and b or not.
 *
 * ints: none, or [1] for W transposed, (O, I). If O is less than a vector, these rows are the longer ones.
 */
#include "pieces.h"

static int is_turned(const efl_op_shapes *s) {
    return s->node->num_ints > 0;
}

static int64_t outputs(const efl_op_shapes *s) {
    return s->w[0].dim[!is_turned(s)];
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *w = &s->w[0], *b = &s->w[1];
    if (s->node->num_ints > 1 || (s->node->num_ints == 1 && s->node->ints[0] != 1))
        return efl_fail(error, EFL_MODEL, "takes no attribute but 1, for a turned weight");
    if (x->ndim < 1 || w->ndim != 2 || w->dim[is_turned(s)] != x->dim[x->ndim - 1])
        return efl_fail(error, EFL_MODEL, "needs a weight (I, O), I the input's last axis");
    if (s->node->num_params == 2 && (b->ndim != 1 || b->dim[0] != outputs(s)))
        return efl_fail(error, EFL_MODEL, "needs a bias (O) for its weight (I, O)");
    s->y = *x;
    s->y.dim[x->ndim - 1] = outputs(s);
    s->flops = 2 * efl_shape_size(x) * outputs(s);
    return EFL_OK;
}

/* Leading axes are more rows. */
static int64_t rows(const efl_op_run *run) {
    const efl_shape *x = &run->shapes->x[0];
    return run->batch * (efl_shape_size(x) / x->dim[x->ndim - 1]);
}

static void forward(const efl_op_run *run) {
    const int64_t out = outputs(run->shapes), in = run->shapes->x[0].dim[run->shapes->x[0].ndim - 1], m = rows(run);
    if (!is_turned(run->shapes)) {
        efl_gemm(run, run->y, run->x[0], in, 1, run->w[0], run->w[1], m, out, in, 0);
        return;
    }
    efl_gemm_nt(run, run->y, run->x[0], run->w[0], m, out, in);
    if (run->w[1] != NULL) efl_kernels->arithmetic(EFL_ADD, run->y, run->y, out, 1, run->w[1], 0, 1, m, out);
}

static void backward(const efl_op_run *run) {
    const int64_t out = outputs(run->shapes), in = run->shapes->x[0].dim[run->shapes->x[0].ndim - 1], m = rows(run);
    if (run->dw[1] != NULL) efl_kernels->add_rows(run->dw[1], run->dy, m, out);
    if (is_turned(run->shapes)) {
        if (run->dx[0] != NULL) efl_gemm(run, run->dx[0], run->dy, out, 1, run->w[0], NULL, m, in, out, 0);
        if (run->update != NULL) efl_gemm_update(run, run->dy, 1, out, run->x[0], out, in, m);
        if (run->dw[0] != NULL) efl_gemm(run, run->dw[0], run->dy, 1, out, run->x[0], NULL, out, in, m, 1);
        return;
    }
    if (run->dx[0] != NULL) efl_gemm_nt(run, run->dx[0], run->dy, run->w[0], m, in, out);
    if (run->update != NULL) efl_gemm_update(run, run->x[0], 1, in, run->dy, in, out, m);
    if (run->dw[0] != NULL) efl_gemm(run, run->dw[0], run->x[0], 1, in, run->dy, NULL, in, out, m, 1);
}

const efl_op efl_op_dense = {
    .name = "dense",
    .flags = EFL_READS_X | EFL_X_FOR_W | EFL_FUSES,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 2,
    .num_ints = -1,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
