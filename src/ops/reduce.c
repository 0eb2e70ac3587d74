/* reduce.c: numbers along per-sample axes taken together, which disappear. Ints: the axes, ascending. All of them make
 * a scalar.
 *
 *     mean        reduce_max, reduce_min: equal ones share the gradient
 *     norm        the root of the sum of squares; without a gradient where it is 0
 *     log_sum_exp
 */
#include "walk.h"

#include "pieces.h"

#include <math.h>

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

enum { COUNT, KIND }; /* inner */
enum { LARGEST, SMALLEST, NORM, LOG_SUM_EXP };

static int infer_kind(efl_op_shapes *s, int kind, efl_error *error) {
    if (infer(s, error) != EFL_OK) return error->code;
    s->inner[KIND] = kind;
    s->scratch.per_sample = efl_shape_size(&s->y); /* the largest, or how many are */
    return EFL_OK;
}

/* For each element: x[at], and y[to] for what it is reduced to. */
#define FOR_EACH(run, at, to, body)                                                                \
    do {                                                                                           \
        const efl_shape narrow = kept((run)->shapes);                                              \
        efl_walk walk = efl_walk_over((run)->batch, &(run)->shapes->x[0]);                         \
        efl_walk_array(&walk, &narrow, 1);                                                         \
        efl_walk_array(&walk, &(run)->shapes->x[0], 1);                                            \
        efl_walk_pack(&walk);                                                                      \
        const int row = walk.ndim - 2, col = walk.ndim - 1;                                        \
        do {                                                                                       \
            for (int64_t i = 0; i < walk.m; i++) {                                                 \
                for (int64_t j = 0; j < walk.n; j++) {                                             \
                    const int64_t to = walk.at[0] + i * walk.step[0][row] + j * walk.step[0][col]; \
                    const int64_t at = walk.at[1] + i * walk.step[1][row] + j * walk.step[1][col]; \
                    body                                                                           \
                }                                                                                  \
            }                                                                                      \
        } while (!efl_stopped(run) && efl_walk_next(&walk));                                       \
    } while (0)

static int64_t results(const efl_op_run *run) {
    return run->batch * efl_shape_size(&run->shapes->y);
}

/* NaN is the largest and the smallest. */
static void extreme(const efl_op_run *run, float sign) {
    const float *x = run->x[0];
    float *y = run->y;
    for (int64_t i = 0; i < results(run); i++) y[i] = -sign * INFINITY;
    FOR_EACH(run, at, to, if (sign * x[at] > sign * y[to] || x[at] != x[at]) y[to] = x[at];);
}

static void forward_norm(const efl_op_run *run) {
    const float *x = run->x[0];
    float *y = run->y;
    memset(y, 0, (size_t)results(run) * sizeof *y);
    FOR_EACH(run, at, to, y[to] += x[at] * x[at];);
    for (int64_t i = 0; i < results(run); i++) y[i] = sqrtf(y[i]);
}

static void forward_log_sum_exp(const efl_op_run *run) {
    const float *x = run->x[0];
    float *y = run->y, *peak = run->scratch;
    extreme(run, 1);
    memcpy(peak, y, (size_t)results(run) * sizeof *y);
    memset(y, 0, (size_t)results(run) * sizeof *y);
    FOR_EACH(run, at, to, y[to] += expf(x[at] - peak[to]););
    for (int64_t i = 0; i < results(run); i++) y[i] = peak[i] + logf(y[i]);
}

static void forward_kind(const efl_op_run *run) {
    switch (run->shapes->inner[KIND]) {
    case LARGEST: extreme(run, 1); break;
    case SMALLEST: extreme(run, -1); break;
    case NORM: forward_norm(run); break;
    default: forward_log_sum_exp(run);
    }
}

static void backward_extreme(const efl_op_run *run) {
    const float *x = run->x[0], *y = run->y, *dy = run->dy;
    float *count = run->scratch, *dx = run->dx[0];
    memset(count, 0, (size_t)results(run) * sizeof *count);
    FOR_EACH(run, at, to, count[to] += x[at] == y[to];);
    FOR_EACH(run, at, to, dx[at] = x[at] == y[to] ? dy[to] / count[to] : 0;);
}

static void backward_kind(const efl_op_run *run) {
    const float *x = run->x[0], *y = run->y, *dy = run->dy;
    float *dx = run->dx[0];
    if (dx == NULL) return;
    if (run->shapes->inner[KIND] == NORM)
        FOR_EACH(run, at, to, dx[at] = y[to] == 0 ? 0 : dy[to] * x[at] / y[to];);
    else if (run->shapes->inner[KIND] == LOG_SUM_EXP)
        FOR_EACH(run, at, to, dx[at] = dy[to] * expf(x[at] - y[to]););
    else
        backward_extreme(run);
}

#define EFL_REDUCTION(lower, kind)                                                      \
    static int infer_##lower(efl_op_shapes *s, efl_error *error) {                      \
        return infer_kind(s, kind, error);                                              \
    }                                                                                   \
    const efl_op efl_op_##lower = {.name = #lower,                                      \
                                   .flags = EFL_READS_X | EFL_READS_Y | EFL_BY_SAMPLES, \
                                   .min_inputs = 1,                                     \
                                   .max_inputs = 1,                                     \
                                   .num_ints = -1,                                      \
                                   .infer = infer_##lower,                              \
                                   .forward = forward_kind,                             \
                                   .backward = backward_kind};

EFL_REDUCTION(reduce_max, LARGEST)
EFL_REDUCTION(reduce_min, SMALLEST)
EFL_REDUCTION(norm, NORM)
EFL_REDUCTION(log_sum_exp, LOG_SUM_EXP)
