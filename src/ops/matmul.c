/* matmul.c: y(..., M, N) = a(..., M, K) b(..., K, N), the product of two values with equal batch axes.
 * Ints: trans_b; if it is 1, b is (..., N, K). */
#include "pieces.h"

typedef struct {
    int64_t products, m, n, k; /* products: matrix products in a sample */
    int trans_b;
} geometry;

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *a = &s->x[0], *b = &s->x[1];
    const int64_t trans_b = s->node->ints[0];
    if (a->ndim < 2 || a->ndim != b->ndim)
        return efl_fail(error, EFL_MODEL, "needs two inputs with the same number of axes, 2 or more");
    for (int i = 0; i < a->ndim - 2; i++)
        if (a->dim[i] != b->dim[i]) return efl_fail(error, EFL_MODEL, "needs two inputs with equal batch axes");
    if (trans_b != 0 && trans_b != 1) return efl_fail(error, EFL_MODEL, "needs trans_b 0 or 1");
    const int inner = b->ndim - (trans_b ? 1 : 2), outer = b->ndim - (trans_b ? 2 : 1);
    if (a->dim[a->ndim - 1] != b->dim[inner])
        return efl_fail(error, EFL_MODEL, "needs (M, K) by (K, N), or by (N, K) with trans_b");
    s->y = *a;
    s->y.dim[a->ndim - 1] = b->dim[outer];
    s->flops = 2 * efl_shape_size(a) * b->dim[outer];
    return EFL_OK;
}

static geometry geometry_of(const efl_op_run *run) {
    const efl_shape *a = &run->shapes->x[0], *y = &run->shapes->y;
    geometry g = {.products = 1,
                  .m = y->dim[y->ndim - 2],
                  .n = y->dim[y->ndim - 1],
                  .k = a->dim[a->ndim - 1],
                  .trans_b = run->shapes->node->ints[0] != 0};
    for (int i = 0; i < a->ndim - 2; i++) g.products *= a->dim[i];
    return g;
}

static void forward(const efl_op_run *run) {
    const geometry g = geometry_of(run);
    const float *a = run->x[0], *b = run->x[1];
    float *y = run->y;
    for (int64_t i = 0; i < run->batch * g.products && !efl_stopped(run);
         i++, a += g.m * g.k, b += g.k * g.n, y += g.m * g.n) {
        if (g.trans_b)
            efl_gemm_nt(run, y, a, b, g.m, g.n, g.k);
        else
            efl_gemm(run, y, a, g.k, 1, b, NULL, g.m, g.n, g.k, 0);
    }
}

/* da = dy b^T; db = a^T dy. With trans_b: da = dy b; db = dy^T a. */
static void backward(const efl_op_run *run) {
    const geometry g = geometry_of(run);
    for (int64_t i = 0; i < run->batch * g.products && !efl_stopped(run); i++) {
        const float *a = run->x[0] + i * g.m * g.k, *b = run->x[1] + i * g.k * g.n, *dy = run->dy + i * g.m * g.n;
        float *da = run->dx[0] == NULL ? NULL : run->dx[0] + i * g.m * g.k;
        float *db = run->dx[1] == NULL ? NULL : run->dx[1] + i * g.k * g.n;
        if (da != NULL && g.trans_b) efl_gemm(run, da, dy, g.n, 1, b, NULL, g.m, g.k, g.n, 0);
        if (da != NULL && !g.trans_b) efl_gemm_nt(run, da, dy, b, g.m, g.k, g.n);
        if (db != NULL && g.trans_b) efl_gemm(run, db, dy, 1, g.n, a, NULL, g.n, g.k, g.m, 0);
        if (db != NULL && !g.trans_b) efl_gemm(run, db, a, 1, g.k, dy, NULL, g.k, g.n, g.m, 0);
    }
}

const efl_op efl_op_matmul = {
    .name = "matmul",
    .flags = EFL_READS_X | EFL_BY_SAMPLES,
    .min_inputs = 2,
    .max_inputs = 2,
    .num_ints = 1,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
