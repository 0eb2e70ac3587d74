/* norm.c: batch_norm over all axes but the last, layer_norm over the last.
 *
 * batch_norm   params gamma, beta, mean, var (C); floats epsilon, momentum. In training the batch's own mean and
 *              biased variance normalize it, and running = running * momentum + batch * (1 - momentum), the variance
 *              unbiased as in PyTorch; a batch of one value a channel has none and leaves the running ones alone.
 * layer_norm   params gamma, beta (C); floats epsilon.
 *
 * batch_norm also does what a relu or clip after it would. It reads x twice forward and twice backward,
 * and keeps two numbers a channel. Few channels would leave vectors half empty: a matrix (M, C) is also a matrix (M /
 * K, K C), whose columns are the channels K times over. Parts are rows, each with sums of its own.
 */
#include "parts.h"

#include <math.h>
#include <string.h>

enum { GAMMA, BETA, MEAN, VAR }; /* params */
enum { REPEATS };                /* inner: K */
enum { LANES = 16, SAMPLED = 16 /* rows for a first guess of the mean */ };

static int infer_params(efl_op_shapes *s, int count, efl_error *error) {
    if (s->x[0].ndim < 1) return efl_fail(error, EFL_MODEL, "needs an input with an axis of channels, the last");
    const int64_t channels = s->x[0].dim[s->x[0].ndim - 1];
    for (int k = 0; k < count; k++)
        if (s->w[k].ndim != 1 || s->w[k].dim[0] != channels)
            return efl_fail(error, EFL_MODEL, "needs params (C), C the input's last axis");
    if (!(s->node->floats[0] >= 0 && s->node->floats[0] <= 1))
        return efl_fail(error, EFL_MODEL, "needs an epsilon of 0 to 1");
    s->y = s->x[0];
    s->flops = 4 * efl_shape_size(&s->y);
    return EFL_OK;
}

static int64_t channels(const efl_op_run *run) {
    return run->shapes->w[GAMMA].dim[0];
}

static int64_t rows(const efl_op_run *run) {
    return run->batch * (efl_shape_size(&run->shapes->y) / channels(run));
}

static int infer_batch_norm(efl_op_shapes *s, efl_error *error) {
    int64_t repeats = 1;
    if (infer_params(s, 4, error) != EFL_OK) return error->code;
    if (!(s->node->floats[1] >= 0 && s->node->floats[1] <= 1))
        return efl_fail(error, EFL_MODEL, "needs a momentum of 0 to 1");
    const int64_t c = s->w[GAMMA].dim[0];
    while (c < 8 * LANES && repeats * c % LANES != 0) repeats *= 2;
    s->inner[REPEATS] = repeats;
    s->clamps = EFL_READS_X;
    s->saved.fixed = 2 * c;             /* mean, 1 / deviation */
    s->scratch.fixed = 8 * repeats * c; /* what runs along the wide rows: f (2), shift, sums (2), constants (3), */
    s->scratch.fixed += 2 * EFL_MOST_PARTS * repeats * c; /* and the parts' sums */
    return EFL_OK;
}

/* row(K,C) = x(C), K times */
static void repeat(float *row, const float *x, int64_t c, int64_t repeats) {
    for (int64_t k = 0; k < repeats; k++) memcpy(row + k * c, x, (size_t)c * sizeof *row);
}

/* Adds the K sums of each channel into the first. */
static void fold(float *sums, int64_t c, int64_t repeats) {
    for (int64_t k = 1; k < repeats; k++)
        for (int64_t j = 0; j < c; j++) sums[j] += sums[k * c + j];
}

/* What the parts of a pass over all wide rows read and write, but for x, y and dx. */
typedef struct {
    float *sums; /* (parts, 2, K C) */
    const float *dy, *shift, *abc;
    const efl_affine *f;
} pass;

/* The parts of a pass that touches so many arrays. */
static int64_t pass_parts(const efl_op_run *run, int arrays) {
    const int64_t c = channels(run), m = rows(run), repeats = run->shapes->inner[REPEATS];
    return efl_parts(run, (double)m * (double)c * arrays * EFL_ELEMENT, m / repeats);
}

/* Where a part's wide rows begin, in floats, and how many they are. */
typedef struct {
    int64_t at, count, wide;
} wide_rows;

static wide_rows rows_of(const efl_op_run *run, efl_share share) {
    const int64_t repeats = run->shapes->inner[REPEATS], total = rows(run) / repeats, wide = repeats * channels(run);
    const int64_t from = efl_part_start(total, share.count, share.part, 1);
    return (wide_rows){from * wide, efl_part_start(total, share.count, share.part + 1, 1) - from, wide};
}

static void sum_part(const efl_op_run *run, efl_share share, const void *context) {
    const pass *p = context;
    const wide_rows r = rows_of(run, share);
    const float *x = run->x[0] + r.at;
    float *sums = p->sums + share.part * 2 * r.wide;
    memset(sums, 0, (size_t)(2 * r.wide) * sizeof *sums);
    if (p->dy == NULL)
        efl_kernels->moments(sums, x, p->shift, r.count, r.wide);
    else
        efl_kernels->moments_backward(sums, p->dy + r.at, x, p->shift, p->f, r.count, r.wide);
}

static void scale_part(const efl_op_run *run, efl_share share, const void *context) {
    const pass *p = context;
    const wide_rows r = rows_of(run, share);
    efl_kernels->scale_rows(run->y + r.at, run->x[0] + r.at, p->f, r.count, r.wide);
}

static void mix_part(const efl_op_run *run, efl_share share, const void *context) {
    const pass *p = context;
    const wide_rows r = rows_of(run, share);
    efl_kernels->mix_rows(run->dx[0] + r.at, p->dy + r.at, run->x[0] + r.at, p->shift, p->abc, p->f, r.count, r.wide);
}

/* both(2,C) = sums over the rows of x, or of dy and x, about shift(K,C). The K C wide part first, then what is left. */
static void sum_up(const efl_op_run *run, float *both, const float *dy, const float *shift, const efl_affine *f) {
    const int64_t c = channels(run), m = rows(run), repeats = run->shapes->inner[REPEATS], wide = repeats * c;
    const float *x = run->x[0];
    const int64_t parts = pass_parts(run, dy == NULL ? 1 : 2);
    float *sums = parts == 1 ? both : run->scratch + 8 * wide;
    efl_parallel(run, parts, sum_part, &(pass){.sums = sums, .dy = dy, .shift = shift, .f = f});
    if (parts > 1) memcpy(both, sums, (size_t)(2 * wide) * sizeof *both);
    for (int64_t i = 1; i < parts; i++) efl_kernels->add(both, sums + i * 2 * wide, 2 * wide);
    fold(both, c, repeats);
    fold(both + wide, c, repeats);
    memmove(both + c, both + wide, (size_t)c * sizeof *both);
    const int64_t done = m / repeats * wide;
    if (dy == NULL)
        efl_kernels->moments(both, x + done, shift, m % repeats, c);
    else
        efl_kernels->moments_backward(both, dy + done, x + done, shift, f, m % repeats, c);
}

/* Sums about a first guess of the mean keep their digits, also if the mean is far from 0. */
static void batch_statistics(const efl_op_run *run, float *mean, float *deviation, float *var) {
    const int64_t c = channels(run), m = rows(run), repeats = run->shapes->inner[REPEATS];
    float *shift = run->scratch + 2 * repeats * c, *both = shift + repeats * c;
    const int64_t step = m < SAMPLED ? 1 : m / SAMPLED, count = m < SAMPLED ? m : SAMPLED;
    memset(shift, 0, (size_t)c * sizeof *shift);
    for (int64_t i = 0; i < count; i++)
        for (int64_t j = 0; j < c; j++) shift[j] += run->x[0][i * step * c + j] / (float)count;
    repeat(shift + c, shift, c, repeats - 1);
    sum_up(run, both, NULL, shift, NULL);
    for (int64_t j = 0; j < c; j++) {
        const float off = both[j] / (float)m, square = both[c + j] / (float)m - off * off;
        mean[j] = shift[j] + off;
        var[j] = square < 0 ? 0 : square; /* NaN passes */
        deviation[j] = 1 / sqrtf(var[j] + (float)run->shapes->node->floats[0]);
    }
}

static void move_running(const efl_op_run *run, const float *mean, const float *var) {
    const int64_t m = rows(run);
    const float kept = (float)run->shapes->node->floats[1], unbiased = (float)m / (float)(m - 1);
    float *running_mean = run->state[MEAN], *running_var = run->state[VAR];
    if (m < 2 || running_mean == NULL || running_var == NULL) return;
    for (int64_t j = 0; j < channels(run); j++) {
        running_mean[j] = kept * running_mean[j] + (1 - kept) * mean[j];
        running_var[j] = kept * running_var[j] + (1 - kept) * var[j] * unbiased;
    }
}

/* f(K,C) = what forward does to x once mean and deviation are known; in scratch. */
static efl_affine affine(const efl_op_run *run) {
    const int64_t c = channels(run), repeats = run->shapes->inner[REPEATS];
    const float *mean = run->saved, *deviation = mean + c;
    float *scale = run->scratch, *offset = scale + repeats * c;
    for (int64_t j = 0; j < c; j++) {
        scale[j] = run->w[GAMMA][j] * deviation[j];
        offset[j] = run->w[BETA][j] - mean[j] * scale[j];
    }
    repeat(scale + c, scale, c, repeats - 1);
    repeat(offset + c, offset, c, repeats - 1);
    return (efl_affine){scale, offset, run->clamp == NULL ? (efl_clamp){-INFINITY, INFINITY} : *run->clamp};
}

static void forward_batch_norm(const efl_op_run *run) {
    const int64_t c = channels(run), m = rows(run), repeats = run->shapes->inner[REPEATS], wide = repeats * c;
    float *mean = run->saved, *deviation = mean + c, *var = run->scratch;
    if (run->again) {
        /* saved holds the batch's statistics */
    } else if (run->training) {
        batch_statistics(run, mean, deviation, var);
        move_running(run, mean, var);
    } else {
        const float epsilon = (float)run->shapes->node->floats[0];
        memcpy(mean, run->w[MEAN], (size_t)c * sizeof *mean);
        for (int64_t j = 0; j < c; j++) deviation[j] = 1 / sqrtf(run->w[VAR][j] + epsilon);
    }
    const efl_affine f = affine(run);
    const int64_t done = m / repeats * wide;
    efl_parallel(run, pass_parts(run, 2), scale_part, &(pass){.f = &f});
    efl_kernels->scale_rows(run->y + done, run->x[0] + done, &f, m % repeats, c);
}

/* With u = (x - mean) / deviation and dy's sums over the batch:
 * dgamma = sum(dy u); dbeta = sum(dy); dx = gamma / deviation (dy - dbeta / M - u dgamma / M) */
static void backward_batch_norm(const efl_op_run *run) {
    const int64_t c = channels(run), m = rows(run), repeats = run->shapes->inner[REPEATS], wide = repeats * c;
    const float *deviation = run->saved + c;
    const efl_affine forward = affine(run), *f = run->clamp == NULL ? NULL : &forward;
    float *mean = run->scratch + 2 * wide, *both = mean + wide, *abc = both + 2 * wide;
    repeat(mean, run->saved, c, repeats);
    sum_up(run, both, run->dy, mean, f);
    for (int64_t j = 0; j < c; j++) {
        const float dbeta = both[j], dgamma = both[c + j] * deviation[j];
        if (run->dw[GAMMA] != NULL) run->dw[GAMMA][j] += dgamma;
        if (run->dw[BETA] != NULL) run->dw[BETA][j] += dbeta;
        abc[j] = run->w[GAMMA][j] * deviation[j];
        abc[wide + j] = -abc[j] * deviation[j] * dgamma / (float)m;
        abc[2 * wide + j] = -abc[j] * dbeta / (float)m;
    }
    if (run->dx[0] == NULL) return;
    for (int k = 0; k < 3; k++) repeat(abc + k * wide + c, abc + k * wide, c, repeats - 1);
    const int64_t done = m / repeats * wide, left = m % repeats;
    efl_parallel(run, pass_parts(run, 3), mix_part, &(pass){.dy = run->dy, .shift = mean, .abc = abc, .f = f});
    if (left == 0) return;
    for (int k = 0; k < 3; k++) memcpy(both + k * c, abc + k * wide, (size_t)c * sizeof *both); /* as near as C */
    efl_kernels->mix_rows(run->dx[0] + done, run->dy + done, run->x[0] + done, mean, both, f, left, c);
}

const efl_op efl_op_batch_norm = {.name = "batch_norm",
                                  .flags = EFL_READS_X | EFL_MIXES_SAMPLES,
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .min_params = 4,
                                  .max_params = 4,
                                  .num_floats = 2,
                                  .infer = infer_batch_norm,
                                  .forward = forward_batch_norm,
                                  .backward = backward_batch_norm};

static int infer_layer_norm(efl_op_shapes *s, efl_error *error) {
    if (infer_params(s, 2, error) != EFL_OK) return error->code;
    const int64_t c = s->w[GAMMA].dim[0];
    s->saved.per_sample = 2 * (efl_shape_size(&s->y) / c); /* each row's mean, 1 / deviation */
    s->sums.fixed = 2 * EFL_MOST_PARTS * c;                /* the parts' dgamma, dbeta */
    return EFL_OK;
}

static void layer_part(const efl_op_run *run, efl_share share, const void *context) {
    const int64_t c = channels(run), from = efl_part_start(rows(run), share.count, share.part, 1);
    const int64_t count = efl_part_start(rows(run), share.count, share.part + 1, 1) - from;
    (void)context;
    efl_kernels->layer_norm(run->y + from * c, run->saved + 2 * from, run->x[0] + from * c, run->w[GAMMA], run->w[BETA],
                            (float)run->shapes->node->floats[0], count, c);
}

static void forward_layer_norm(const efl_op_run *run) {
    efl_parallel(run, efl_parts(run, efl_operations(run), rows(run)), layer_part, NULL);
}

/* Adds to dw, or, of several parts, makes the part's sums. */
static void layer_part_backward(const efl_op_run *run, efl_share share, const void *context) {
    const int64_t c = channels(run), from = efl_part_start(rows(run), share.count, share.part, 1);
    const int64_t count = efl_part_start(rows(run), share.count, share.part + 1, 1) - from;
    float *dw[2] = {run->dw[GAMMA], run->dw[BETA]};
    (void)context;
    for (int k = 0; k < 2 && share.count > 1; k++)
        if (dw[k] != NULL) dw[k] = memset(run->scratch + (2 * share.part + k) * c, 0, (size_t)c * sizeof(float));
    efl_kernels->layer_norm_backward(run->dx[0] == NULL ? NULL : run->dx[0] + from * c, dw[0], dw[1],
                                     run->dy + from * c, run->x[0] + from * c, run->saved + 2 * from, run->w[GAMMA],
                                     count, c);
}

static void backward_layer_norm(const efl_op_run *run) {
    const int64_t c = channels(run), parts = efl_parts(run, efl_operations(run), rows(run));
    efl_parallel(run, parts, layer_part_backward, NULL);
    for (int64_t i = 0; i < parts && parts > 1; i++)
        for (int k = 0; k < 2; k++)
            if (run->dw[k] != NULL) efl_kernels->add(run->dw[k], run->scratch + (2 * i + k) * c, c);
}

const efl_op efl_op_layer_norm = {.name = "layer_norm",
                                  .flags = EFL_READS_X,
                                  .min_inputs = 1,
                                  .max_inputs = 1,
                                  .min_params = 2,
                                  .max_params = 2,
                                  .num_floats = 1,
                                  .infer = infer_layer_norm,
                                  .forward = forward_layer_norm,
                                  .backward = backward_layer_norm};
