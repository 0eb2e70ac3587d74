/* group_norm.c: each sample normalised by groups: x(B, M, G, I) over M and I. Instance norm has a group for each
 * channel.
 *
 * Ints: [groups G, inner I]; M is what is left of a sample. Floats: [epsilon]. Params: none, or gamma and beta, either
 * (G I), a number for each column of (M, G I), or (G), one for each group.
 */
#include "pieces.h"

#include <math.h>
#include <string.h>

enum { GAMMA, BETA };                    /* params */
enum { GROUPS, INNER, COLUMNS, ROWS };   /* inner: G, I, G I, M */
enum { MEAN, DEVIATION, STATISTICS };    /* saved for each group: its mean, 1 / deviation */

static int infer(efl_op_shapes *s, efl_error *error) {
    const int64_t *ints = s->node->ints, size = efl_shape_size(&s->x[0]), most = (int64_t)1 << 30;
    if (ints[0] < 1 || ints[0] > most || ints[1] < 1 || ints[1] > most || size % (ints[0] * ints[1]) != 0)
        return efl_fail(error, EFL_MODEL, "needs groups and an inner size that divide a sample");
    const int64_t columns = ints[0] * ints[1];
    if (s->node->num_params == 1) return efl_fail(error, EFL_MODEL, "needs both gamma and beta, or no params");
    for (int k = 0; k < s->node->num_params; k++)
        if (s->w[k].ndim != 1 || (s->w[k].dim[0] != columns && s->w[k].dim[0] != ints[0]) ||
            s->w[k].dim[0] != s->w[0].dim[0])
            return efl_fail(error, EFL_MODEL, "needs a gamma and a beta for each group, or for each column");
    if (!(s->node->floats[0] >= 0 && s->node->floats[0] <= 1))
        return efl_fail(error, EFL_MODEL, "needs an epsilon of 0 to 1");
    s->y = s->x[0];
    s->flops = 4 * size;
    s->inner[GROUPS] = ints[0];
    s->inner[INNER] = ints[1];
    s->inner[COLUMNS] = columns;
    s->inner[ROWS] = size / columns;
    s->saved.per_sample = STATISTICS * ints[0];
    s->scratch.fixed = s->own = 6 * columns; /* shift, sums (2), constants (3) */
    return EFL_OK;
}

/* Where column c has its gamma and beta. */
static int64_t place(const efl_op_run *run, int64_t c) {
    return run->shapes->w[GAMMA].dim[0] == run->shapes->inner[COLUMNS] ? c : c / run->shapes->inner[INNER];
}

static float gamma_of(const efl_op_run *run, int64_t c) {
    return run->shapes->node->num_params ? run->w[GAMMA][place(run, c)] : 1;
}

static float beta_of(const efl_op_run *run, int64_t c) {
    return run->shapes->node->num_params ? run->w[BETA][place(run, c)] : 0;
}

/* A first guess of each group's mean, from its first row, keeps the digits of sums about it. */
static void guess(const efl_op_run *run, float *shift, const float *x) {
    const int64_t inner = run->shapes->inner[INNER];
    for (int64_t c = 0; c < run->shapes->inner[COLUMNS]; c += inner) {
        double sum = 0;
        for (int64_t i = 0; i < inner; i++) sum += x[c + i];
        for (int64_t i = 0; i < inner; i++) shift[c + i] = (float)(sum / (double)inner);
    }
}

static void statistics(const efl_op_run *run, float *saved, const float *x) {
    const int64_t *g = run->shapes->inner, inner = g[INNER], columns = g[COLUMNS];
    const double count = (double)(g[ROWS] * inner);
    float *shift = run->scratch, *both = shift + columns;
    guess(run, shift, x);
    memset(both, 0, (size_t)(2 * columns) * sizeof *both);
    efl_kernels->moments(both, x, shift, g[ROWS], columns);
    for (int64_t at = 0; at < g[GROUPS]; at++) {
        double sum = 0, square = 0;
        for (int64_t c = at * inner; c < (at + 1) * inner; c++) {
            sum += both[c];
            square += both[columns + c];
        }
        const double off = sum / count, var = square / count - off * off; /* NaN passes */
        saved[STATISTICS * at + MEAN] = shift[at * inner] + (float)off;
        saved[STATISTICS * at + DEVIATION] = 1 /
                                             sqrtf((var < 0 ? 0 : (float)var) + (float)run->shapes->node->floats[0]);
    }
}

static void forward(const efl_op_run *run) {
    const int64_t *g = run->shapes->inner, size = g[ROWS] * g[COLUMNS];
    float *scale = run->scratch, *offset = scale + g[COLUMNS];
    for (int64_t b = 0; b < run->batch && !efl_stopped(run); b++) {
        float *saved = run->saved + b * STATISTICS * g[GROUPS];
        statistics(run, saved, run->x[0] + b * size);
        for (int64_t c = 0; c < g[COLUMNS]; c++) {
            const float *own = saved + STATISTICS * (c / g[INNER]);
            scale[c] = gamma_of(run, c) * own[DEVIATION];
            offset[c] = beta_of(run, c) - own[MEAN] * scale[c];
        }
        const efl_affine f = {scale, offset, {-INFINITY, INFINITY}};
        efl_kernels->scale_rows(run->y + b * size, run->x[0] + b * size, &f, g[ROWS], g[COLUMNS]);
    }
}

/* With u = (x - mean) r, r = 1 / deviation, n the elements of a group and sums over it:
 * dx = r (gamma dy - sum(gamma dy) / n - u sum(gamma dy u) / n) */
static void group_backward(const efl_op_run *run, const float *own, const float *both, float *abc, int64_t first) {
    const int64_t *g = run->shapes->inner, columns = g[COLUMNS], end = first + g[INNER];
    const float r = own[DEVIATION];
    const double count = (double)(g[ROWS] * g[INNER]);
    double sum = 0, product = 0;
    for (int64_t c = first; c < end; c++) {
        const float gamma = gamma_of(run, c);
        sum += gamma * both[c];
        product += gamma * both[columns + c];
        if (run->dw[GAMMA] != NULL) run->dw[GAMMA][place(run, c)] += both[columns + c] * r;
        if (run->dw[BETA] != NULL) run->dw[BETA][place(run, c)] += both[c];
    }
    for (int64_t c = first; c < end; c++) {
        abc[c] = gamma_of(run, c) * r;
        abc[columns + c] = (float)(-r * r * r * product / count);
        abc[2 * columns + c] = (float)(-r * sum / count);
    }
}

static void backward(const efl_op_run *run) {
    const int64_t *g = run->shapes->inner, columns = g[COLUMNS], size = g[ROWS] * columns;
    float *mean = run->scratch, *both = mean + columns, *abc = both + 2 * columns;
    for (int64_t b = 0; b < run->batch && !efl_stopped(run); b++) {
        const float *saved = run->saved + b * STATISTICS * g[GROUPS], *x = run->x[0] + b * size;
        for (int64_t c = 0; c < columns; c++) mean[c] = saved[STATISTICS * (c / g[INNER]) + MEAN];
        memset(both, 0, (size_t)(2 * columns) * sizeof *both);
        efl_kernels->moments_backward(both, run->dy + b * size, x, mean, NULL, g[ROWS], columns);
        for (int64_t at = 0; at < g[GROUPS]; at++)
            group_backward(run, saved + STATISTICS * at, both, abc, at * g[INNER]);
        if (run->dx[0] != NULL)
            efl_kernels->mix_rows(run->dx[0] + b * size, run->dy + b * size, x, mean, abc, NULL, g[ROWS], columns);
    }
}

const efl_op efl_op_group_norm = {.name = "group_norm",
                                  .flags = EFL_READS_X | EFL_BY_SAMPLES,
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .max_params = 2,
                                  .num_ints = 2,
                                  .num_floats = 1,
                                  .infer = infer,
                                  .forward = forward,
                                  .backward = backward};
