/* pool.c: maxpool and avgpool of x(H, W, C). Ints: kh, kw, stride_h, stride_w, pad_top, pad_left, pad_bottom,
 * pad_right; avgpool also count_include_pad (1: padding counts as zeros, 0: it does not count).
 *
 * maxpool keeps no index: backward searches for the largest again, in x, which the layer before it keeps anyway.
 */
#include "window.h"

static int geometry(efl_window *w, const efl_op_shapes *s, efl_error *error) {
    const int64_t *ints = s->node->ints, *x = s->x[0].dim;
    if (s->x[0].ndim != 3) return efl_fail(error, EFL_MODEL, "needs an input (H, W, C)");
    *w = (efl_window){.x = {x[0], x[1], x[2]}, .y = {0, 0, x[2]}, .kernel = {ints[0], ints[1]}};
    for (int i = 0; i < 2; i++)
        if (ints[i] < 1 || ints[i] > (int64_t)1 << 30 || ints[4 + i] >= ints[i] || ints[6 + i] >= ints[i])
            return efl_fail(error, EFL_MODEL, "needs windows of at least 1, and pads smaller than them");
    return efl_window_read(w, ints + 2, 0, error);
}

static int infer(efl_op_shapes *s, efl_error *error) {
    efl_window w;
    if (geometry(&w, s, error) != EFL_OK) return error->code;
    s->y = (efl_shape){.ndim = 3, .dim = {w.y[0], w.y[1], w.y[2]}};
    s->flops = efl_shape_size(&s->y) * w.kernel[0] * w.kernel[1];
    return EFL_OK;
}

static int infer_average(efl_op_shapes *s, efl_error *error) {
    if (s->node->ints[8] != 0 && s->node->ints[8] != 1)
        return efl_fail(error, EFL_MODEL, "needs count_include_pad to be 0 or 1");
    return infer(s, error);
}

static efl_window window_of(const efl_op_run *run) {
    efl_window w;
    efl_error error;
    geometry(&w, run->shapes, &error);
    return w;
}

static void forward_largest(const efl_op_run *run) {
    const efl_window w = window_of(run);
    const int64_t in = efl_image_size(w.x), out = efl_image_size(w.y);
    for (int64_t i = 0; i < run->batch; i++) efl_kernels->maxpool(run->y + i * out, run->x[0] + i * in, &w);
}

static void backward_largest(const efl_op_run *run) {
    const efl_window w = window_of(run);
    const int64_t in = efl_image_size(w.x), out = efl_image_size(w.y);
    for (int64_t i = 0; i < run->batch; i++)
        efl_kernels->maxpool_backward(run->dx[0] + i * in, run->dy + i * out, run->x[0] + i * in, &w);
}

static void forward_average(const efl_op_run *run) {
    const efl_window w = window_of(run);
    const int64_t in = efl_image_size(w.x), out = efl_image_size(w.y);
    const int include_pad = run->shapes->node->ints[8] != 0;
    for (int64_t i = 0; i < run->batch; i++)
        efl_kernels->avgpool(run->y + i * out, run->x[0] + i * in, &w, include_pad);
}

static void backward_average(const efl_op_run *run) {
    const efl_window w = window_of(run);
    const int64_t in = efl_image_size(w.x), out = efl_image_size(w.y);
    const int include_pad = run->shapes->node->ints[8] != 0;
    for (int64_t i = 0; i < run->batch; i++)
        efl_kernels->avgpool_backward(run->dx[0] + i * in, run->dy + i * out, &w, include_pad);
}

const efl_op efl_op_maxpool = {.name = "maxpool",
                               .flags = EFL_READS_X,
                               .min_inputs = 1,
                               .max_inputs = 1,
                               .num_ints = 8,
                               .infer = infer,
                               .forward = forward_largest,
                               .backward = backward_largest};

const efl_op efl_op_avgpool = {.name = "avgpool",
                               .min_inputs = 1,
                               .max_inputs = 1,
                               .num_ints = 9,
                               .infer = infer_average,
                               .forward = forward_average,
                               .backward = backward_average};
