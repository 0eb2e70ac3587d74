/* pool.c: maxpool and avgpool of x(H, W, C). Ints: kh, kw, stride_h, stride_w, pad_top, pad_left, pad_bottom,
 * pad_right; avgpool also count_include_pad (1: padding counts as zeros, 0: it does not count); then, or not, dil_h,
 * dil_w.
 *
 * maxpool keeps no index: backward searches for the largest again, in x, which the layer before it keeps anyway.
 */
#include "pieces.h"
#include "window.h"

#include <string.h>

/* `own` ints stand between the pads and the dilations. */
static int geometry(efl_window *w, const efl_op_shapes *s, int own, efl_error *error) {
    const int64_t *ints = s->node->ints, *x = s->x[0].dim;
    const int dilated = s->node->num_ints > 8 + own;
    int64_t rest[8] = {0}; /* strides, pads, dilations */
    if (s->node->num_ints != 8 + own + 2 * dilated)
        return efl_fail(error, EFL_MODEL, "wrong number of inputs, params or attributes");
    memcpy(rest, ints + 2, 6 * sizeof *rest);
    memcpy(rest + 6, ints + 8 + own, dilated ? 2 * sizeof *rest : 0);
    if (s->x[0].ndim != 3) return efl_fail(error, EFL_MODEL, "needs an input (H, W, C)");
    *w = (efl_window){.x = {x[0], x[1], x[2]}, .y = {0, 0, x[2]}, .kernel = {ints[0], ints[1]}};
    for (int i = 0; i < 2; i++)
        if (ints[i] < 1 || ints[i] > (int64_t)1 << 30 || ints[4 + i] >= ints[i] || ints[6 + i] >= ints[i])
            return efl_fail(error, EFL_MODEL, "needs windows of at least 1, and pads smaller than them");
    if (efl_window_read(w, rest, dilated, error) != EFL_OK) return error->code;
    for (int i = 0; i < 2; i++) /* else a window could reach over the whole input, from padding to padding */
        if (w->kernel[i] > 1 && w->dilation[i] > 1 && w->dilation[i] > w->x[i])
            return efl_fail(error, EFL_MODEL, "needs dilations no larger than its input");
    return EFL_OK;
}

static int infer_window(efl_op_shapes *s, int own, efl_error *error) {
    efl_window w;
    if (geometry(&w, s, own, error) != EFL_OK) return error->code;
    s->y = (efl_shape){.ndim = 3, .dim = {w.y[0], w.y[1], w.y[2]}};
    s->flops = efl_shape_size(&s->y) * w.kernel[0] * w.kernel[1];
    return EFL_OK;
}

static int infer_largest(efl_op_shapes *s, efl_error *error) {
    return infer_window(s, 0, error);
}

static int infer_average(efl_op_shapes *s, efl_error *error) {
    if (s->node->num_ints < 9 || s->node->num_ints > 11)
        return efl_fail(error, EFL_MODEL, "wrong number of inputs, params or attributes");
    if (s->node->ints[8] != 0 && s->node->ints[8] != 1)
        return efl_fail(error, EFL_MODEL, "needs count_include_pad to be 0 or 1");
    return infer_window(s, 1, error);
}

static efl_window window_of(const efl_op_run *run) {
    efl_window w;
    efl_error error;
    geometry(&w, run->shapes, run->shapes->node->num_ints % 2, &error);
    return w;
}

enum { LANES = 16 }; /* fewer channels take as long */

typedef void pool_kernel(const efl_op_run *run, const efl_window *w, int64_t sample);

static void forward_largest(const efl_op_run *run, const efl_window *w, int64_t i) {
    efl_kernels->maxpool(run->y + i * efl_image_size(w->y), run->x[0] + i * efl_image_size(w->x), w);
}

static void backward_largest(const efl_op_run *run, const efl_window *w, int64_t i) {
    const int64_t in = efl_image_size(w->x);
    efl_kernels->maxpool_backward(run->dx[0] + i * in, run->dy + i * efl_image_size(w->y), run->x[0] + i * in, w);
}

static void forward_average(const efl_op_run *run, const efl_window *w, int64_t i) {
    efl_kernels->avgpool(run->y + i * efl_image_size(w->y), run->x[0] + i * efl_image_size(w->x), w,
                         run->shapes->node->ints[8] != 0);
}

static void backward_average(const efl_op_run *run, const efl_window *w, int64_t i) {
    efl_kernels->avgpool_backward(run->dx[0] + i * efl_image_size(w->x), run->dy + i * efl_image_size(w->y), w,
                                  run->shapes->node->ints[8] != 0);
}

/* One sample in pieces of `rows` rows and `columns` columns of y. */
static void pool_sample(const efl_op_run *run, efl_window *w, int64_t i, pool_kernel *kernel, int64_t rows,
                        int64_t columns) {
    for (int64_t row = 0; row < w->y[0]; row += rows) {
        for (int64_t column = 0; column < w->y[1] && !efl_stopped(run); column += columns) {
            w->from[0] = row;
            w->from[1] = column;
            w->to[0] = efl_smaller(row + rows, w->y[0]);
            w->to[1] = efl_smaller(column + columns, w->y[1]);
            kernel(run, w, i);
        }
    }
}

static void pool(const efl_op_run *run, pool_kernel *kernel) {
    efl_window w = window_of(run);
    const double channels = w.x[2] < LANES ? LANES : (double)w.x[2];
    const double pixel = (double)w.kernel[0] * (double)w.kernel[1] * channels; /* of y */
    const double pixels = (double)EFL_PIECE / pixel, rows = pixels / (double)w.y[1];
    const int64_t columns = pixels >= (double)w.y[1] ? w.y[1] : pixels > 1 ? (int64_t)pixels : 1;
    for (int64_t i = 0; i < run->batch; i++)
        pool_sample(run, &w, i, kernel, rows >= (double)w.y[0] ? w.y[0] : rows > 1 ? (int64_t)rows : 1, columns);
}

static void pool_back(const efl_op_run *run, pool_kernel *kernel) {
    memset(run->dx[0], 0, (size_t)(run->batch * efl_shape_size(&run->shapes->x[0])) * sizeof(float));
    pool(run, kernel);
}

#define EFL_POOL(which)                                   \
    static void which##_forward(const efl_op_run *run) {  \
        pool(run, forward_##which);                       \
    }                                                     \
    static void which##_backward(const efl_op_run *run) { \
        pool_back(run, backward_##which);                 \
    }

EFL_POOL(largest)
EFL_POOL(average)

const efl_op efl_op_maxpool = {.name = "maxpool",
                               .flags = EFL_READS_X | EFL_BY_SAMPLES,
                               .min_inputs = 1,
                               .max_inputs = 1,
                               .num_ints = -1,
                               .infer = infer_largest,
                               .forward = largest_forward,
                               .backward = largest_backward};

const efl_op efl_op_avgpool = {.name = "avgpool",
                               .flags = EFL_BY_SAMPLES,
                               .min_inputs = 1,
                               .max_inputs = 1,
                               .num_ints = -1,
                               .infer = infer_average,
                               .forward = average_forward,
                               .backward = average_backward};
