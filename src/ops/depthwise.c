/* depthwise.c: every channel convolved by itself: y(OH, OW, C * m), channel c * m + j reads channel c of x(H, W, C),
 * W(KH, KW, C * m), b(C * m). Params: W, and b or not. Ints: stride_h, stride_w, pad_top, pad_left, pad_bottom,
 * pad_right, dil_h, dil_w.
 *
 * If m > 1, the padded copy of x repeats its channels; the rest is as for m = 1. Parts are samples, each with sums of
 * its own for the gradients of W and b.
 */
#include "parts.h"
#include "pieces.h"
#include "window.h"

#include <string.h>

static efl_window window_of(const efl_op_shapes *s) {
    const efl_shape *x = &s->x[0], *k = &s->w[0];
    return (efl_window){
        .x = {x->dim[0], x->dim[1], x->dim[2]}, .y = {0, 0, k->dim[2]}, .kernel = {k->dim[0], k->dim[1]}};
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *k = &s->w[0], *b = &s->w[1];
    if (x->ndim != 3 || k->ndim != 3 || k->dim[2] % x->dim[2] != 0)
        return efl_fail(error, EFL_MODEL, "needs an input (H, W, C) and a weight (KH, KW, a multiple of C)");
    if (s->node->num_params == 2 && (b->ndim != 1 || b->dim[0] != k->dim[2]))
        return efl_fail(error, EFL_MODEL, "needs a bias of the weight's last axis");
    efl_window w = window_of(s);
    if (efl_window_read(&w, s->node->ints, 1, error) != EFL_OK) return error->code;
    s->y = (efl_shape){.ndim = 3, .dim = {w.y[0], w.y[1], w.y[2]}};
    s->flops = 2 * efl_shape_size(&s->y) * k->dim[0] * k->dim[1];
    const int64_t repeat = w.y[2] / w.x[2];
    const efl_padded in = efl_pad_input(&w, repeat), out = efl_pad_output(&w, w.y[2]);
    const efl_shape sizes[] = {{3, {in.size[0], in.size[1], in.size[2]}}, {3, {out.size[0], out.size[1], out.size[2]}}};
    if (efl_shape_size(&sizes[0]) < 0 || efl_shape_size(&sizes[1]) < 0)
        return efl_fail(error, EFL_MODEL, "has an input or output too large with its padding");
    const int64_t backward = out.room + (repeat > 1 ? repeat * efl_image_size(w.x) : 0);
    s->scratch.fixed = s->own = in.room > backward ? in.room : backward;
    s->sums.fixed = EFL_MOST_PARTS * (efl_shape_size(k) + w.y[2]);
    return EFL_OK;
}

static efl_window geometry(const efl_op_run *run) {
    efl_window w = window_of(run->shapes);
    efl_error error;
    efl_window_read(&w, run->shapes->node->ints, 1, &error);
    return w;
}

/* Forward; with dw, the weights' gradient, which reads what forward writes and writes what it reads. */
static void slide(const efl_op_run *run, const efl_window *w, float *dw) {
    const efl_padded in = efl_pad_input(w, w->y[2] / w->x[2]);
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, run->batch - first);
        const int64_t at = first * efl_image_size(w->y);
        efl_product p = efl_window_product(w, &in, n, w->y[2], 1, w->y[2]);
        p.n = w->y[2];
        p.a = efl_pad(&in, run->scratch, run->x[0] + first * efl_image_size(w->x), n);
        p.b = dw == NULL ? run->w[0] : run->dy + at;
        p.c = dw == NULL ? run->y + at : dw;
        p.bias = dw == NULL ? run->w[1] : NULL;
        p.accumulate = dw != NULL;
        if (dw != NULL) efl_product_exchange(&p);
        efl_product_pieces(run, efl_kernels->product_of_channels, &p);
    }
}

/* The samples of a part, with a room of the thread's own for what is padded. */
static efl_op_run part_of(const efl_op_run *run, efl_share share) {
    efl_op_run part = efl_samples_of(run, share);
    part.scratch = efl_room_of(run, share.slot, run->scratch);
    return part;
}

static void forward_part(const efl_op_run *run, efl_share share, const void *context) {
    const efl_window *w = context;
    const efl_op_run part = part_of(run, share);
    slide(&part, w, NULL);
}

static void forward(const efl_op_run *run) {
    const efl_window w = geometry(run);
    efl_parallel(run, efl_parts(run, efl_operations(run), run->batch), forward_part, &w);
}

/* x(pixels, C) = the sums of m neighbours in wide(pixels, C * m) */
static void sum_repeated(float *x, const float *wide, int64_t count, int64_t repeat) {
    for (int64_t i = 0; i < count; i++) {
        float sum = 0;
        for (int64_t j = 0; j < repeat; j++) sum += *wide++;
        x[i] = sum;
    }
}

static void backward_input(const efl_op_run *run, const efl_window *w) {
    const efl_padded padded = efl_pad_output(w, w->y[2]);
    const int64_t size = efl_image_size(w->x), channels = w->y[2], repeat = channels / w->x[2];
    const int64_t most = repeat > 1 ? 1 : padded.group;
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(most, run->batch - first);
        float *dx = repeat > 1 ? run->scratch + padded.room : run->dx[0] + first * size;
        const float *dy = efl_pad(&padded, run->scratch, run->dy + first * efl_image_size(w->y), n);
        /* Pixels between strides may reach no output. */
        if (w->stride[0] > 1 || w->stride[1] > 1) memset(dx, 0, (size_t)(n * size * repeat) * sizeof *dx);
        for (int64_t row = 0; row < efl_smaller(w->stride[0], w->x[0]); row++) {
            for (int64_t column = 0; column < efl_smaller(w->stride[1], w->x[1]) && !efl_stopped(run); column++) {
                int64_t offsets[3];
                efl_product p;
                if (!efl_window_residue(&p, offsets, w, &padded, n, row, column, channels, 1, channels)) continue;
                p.n = channels;
                p.a = dy + offsets[0];
                p.b = run->w[0] + offsets[1];
                p.c = dx + offsets[2];
                efl_product_pieces(run, efl_kernels->product_of_channels, &p);
            }
        }
        if (repeat > 1) sum_repeated(run->dx[0] + first * size, dx, size, repeat);
    }
}

/* The gradients of W, and behind them those of b, that a part of several adds up. */
static float *sums_of(const efl_op_run *run, int64_t part) {
    const efl_op_shapes *s = run->shapes;
    return run->scratch + s->own + part * (efl_shape_size(&s->w[0]) + s->y.dim[2]);
}

static void backward_part(const efl_op_run *run, efl_share share, const void *context) {
    const efl_window *w = context;
    const efl_op_run part = part_of(run, share);
    const int64_t weights = efl_shape_size(&run->shapes->w[0]), channels = w->y[2];
    float *dw = part.dw[0], *db = part.dw[1];
    if (share.count > 1 && (dw != NULL || db != NULL)) {
        float *sums = memset(sums_of(run, share.part), 0, (size_t)(weights + channels) * sizeof *sums);
        if (dw != NULL) dw = sums;
        if (db != NULL) db = sums + weights;
    }
    if (part.dx[0] != NULL) backward_input(&part, w);
    if (dw != NULL) slide(&part, w, dw);
    if (db != NULL) efl_kernels->add_rows(db, part.dy, part.batch * w->y[0] * w->y[1], channels);
}

static void backward(const efl_op_run *run) {
    const efl_window w = geometry(run);
    const int64_t weights = efl_shape_size(&run->shapes->w[0]);
    const int64_t parts = efl_parts(run, efl_operations(run), run->batch);
    efl_parallel(run, parts, backward_part, &w);
    for (int64_t i = 0; i < parts && parts > 1; i++) {
        if (run->dw[0] != NULL) efl_kernels->add(run->dw[0], sums_of(run, i), weights);
        if (run->dw[1] != NULL) efl_kernels->add(run->dw[1], sums_of(run, i) + weights, w.y[2]);
    }
}

const efl_op efl_op_depthwise = {
    .name = "depthwise",
    .flags = EFL_READS_X | EFL_X_FOR_W,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 2,
    .num_ints = 8,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
