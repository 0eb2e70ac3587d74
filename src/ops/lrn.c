/* lrn.c: local response normalization, Krizhevsky et al. 2012: y = x s^-beta along the last axis, with s = bias + alpha
 * / size * the sum of x x over `size` neighbours, of which the larger half comes after. Ints: size; floats: alpha,
 * beta, bias.
 */
#include "pieces.h"

#include <string.h>

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0];
    const double *floats = s->node->floats;
    if (x->ndim < 1) return efl_fail(error, EFL_MODEL, "needs an input with an axis");
    if (s->node->ints[0] < 1 || s->node->ints[0] > (int64_t)1 << 30)
        return efl_fail(error, EFL_MODEL, "needs a size of 1 to 2^30");
    if (!(floats[0] >= 0 && floats[0] <= 1e6 && floats[1] >= 0 && floats[1] <= 1e3 && floats[2] >= 1e-6 &&
          floats[2] <= 1e6))
        return efl_fail(error, EFL_MODEL, "needs alpha of 0 to 10^6, beta of 0 to 1000 and bias of 10^-6 to 10^6");
    s->y = *x;
    const int64_t n = x->dim[x->ndim - 1], neighbours = s->node->ints[0] < n ? s->node->ints[0] : n;
    s->flops = (8 + neighbours) * efl_shape_size(x);
    s->scratch.fixed = s->own = 3 * n;
    return EFL_OK;
}

/* sums[c] = the sum of a[c - before] to a[c + after], as far as they are there. Each is added up by itself: a running
 * sum would keep the rounding of what has left it. A row of many channels and neighbours takes long. */
static void neighbours(const efl_op_run *run, float *sums, const float *a, int64_t n, int64_t before, int64_t after) {
    for (int64_t c = 0; c < n && !efl_stopped(run); c++) {
        const int64_t from = c > before ? c - before : 0, to = c + after < n ? c + after : n - 1;
        float sum = 0;
        for (int64_t i = from; i <= to; i++) sum += a[i];
        sums[c] = sum;
    }
}

/* s of each channel, with squares as scratch. */
static void scales(const efl_op_run *run, float *s, float *squares, const float *x, int64_t n) {
    const int64_t size = run->shapes->node->ints[0], before = (size - 1) / 2;
    const float alpha = (float)(run->shapes->node->floats[0] / (double)size);
    const float bias = (float)run->shapes->node->floats[2];
    for (int64_t c = 0; c < n; c++) squares[c] = x[c] * x[c];
    neighbours(run, s, squares, n, before, size - 1 - before);
    for (int64_t c = 0; c < n; c++) s[c] = bias + alpha * s[c];
}

static void forward(const efl_op_run *run) {
    const efl_shape *shape = &run->shapes->y;
    const int64_t n = shape->dim[shape->ndim - 1], total = run->batch * efl_shape_size(shape);
    const float beta = (float)run->shapes->node->floats[1];
    for (int64_t i = 0; i < total && !efl_stopped(run); i += n) {
        const float *x = run->x[0] + i;
        float *s = run->scratch, *power = s + n, *y = run->y + i;
        scales(run, s, power, x, n);
        efl_kernels->pointwise(EFL_POINT_POW, power, s, -beta, 0, n);
        for (int64_t c = 0; c < n; c++) y[c] = x[c] * power[c];
    }
}

/* dx = dy s^-beta - 2 alpha beta / size x * the sum of dy x s^(-beta - 1) over the channels that x is a neighbour of */
static void backward(const efl_op_run *run) {
    const efl_shape *shape = &run->shapes->y;
    const int64_t n = shape->dim[shape->ndim - 1], total = run->batch * efl_shape_size(shape);
    const int64_t size = run->shapes->node->ints[0], before = (size - 1) / 2;
    const float beta = (float)run->shapes->node->floats[1];
    const float factor = (float)(2 * run->shapes->node->floats[0] * run->shapes->node->floats[1] / (double)size);
    for (int64_t i = 0; i < total && !efl_stopped(run); i += n) {
        const float *x = run->x[0] + i, *dy = run->dy + i;
        float *s = run->scratch, *power = s + n, *back = power + n, *dx = run->dx[0] + i;
        scales(run, s, power, x, n);
        efl_kernels->pointwise(EFL_POINT_POW, power, s, -beta, 0, n);
        for (int64_t c = 0; c < n; c++) back[c] = dy[c] * x[c] * power[c] / s[c];
        neighbours(run, s, back, n, size - 1 - before, before);
        for (int64_t c = 0; c < n; c++) dx[c] = dy[c] * power[c] - factor * x[c] * s[c];
    }
}

const efl_op efl_op_lrn = {.name = "lrn",
                           .flags = EFL_READS_X | EFL_BY_SAMPLES,
                           .min_inputs = 1,
                           .max_inputs = 1,
                           .num_ints = 1,
                           .num_floats = 3,
                           .infer = infer,
                           .forward = forward,
                           .backward = backward};
