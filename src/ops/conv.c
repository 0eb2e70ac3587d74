/* conv.c: y(OH, OW, O) = windows of x(H, W, C) times W(KH, KW, C / groups, O) + b(O), correlation as in ONNX.
 * Params: W, and b or not. Ints: stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right, dil_h, dil_w, groups.
 */
#include "pieces.h"
#include "window.h"

#include <string.h>

static efl_window window_of(const efl_op_shapes *s) {
    const efl_shape *x = &s->x[0], *k = &s->w[0];
    return (efl_window){
        .x = {x->dim[0], x->dim[1], x->dim[2]}, .y = {0, 0, k->dim[3]}, .kernel = {k->dim[0], k->dim[1]}};
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *k = &s->w[0], *b = &s->w[1];
    const int64_t groups = s->node->ints[8];
    if (x->ndim != 3 || k->ndim != 4)
        return efl_fail(error, EFL_MODEL, "needs an input (H, W, C) and a weight of 4 axes");
    if (groups < 1 || x->dim[2] % groups != 0 || k->dim[3] % groups != 0 || k->dim[2] != x->dim[2] / groups)
        return efl_fail(error, EFL_MODEL, "needs a weight (KH, KW, C / groups, O), groups dividing C and O");
    if (s->node->num_params == 2 && (b->ndim != 1 || b->dim[0] != k->dim[3]))
        return efl_fail(error, EFL_MODEL, "needs a bias (O)");
    efl_window w = window_of(s);
    if (efl_window_read(&w, s->node->ints, 1, error) != EFL_OK) return error->code;
    s->y = (efl_shape){.ndim = 3, .dim = {w.y[0], w.y[1], w.y[2]}};
    s->flops = 2 * efl_shape_size(&s->y) * k->dim[0] * k->dim[1] * k->dim[2];
    const efl_padded in = efl_pad_input(&w, 1), out = efl_pad_output(&w, w.y[2]);
    const int64_t flipped = efl_shape_size(k) + out.room;
    if (efl_shape_size(&(efl_shape){.ndim = 3, .dim = {out.size[0], out.size[1], out.size[2]}}) < 0)
        return efl_fail(error, EFL_MODEL, "has an output too large with its padding");
    s->scratch.fixed = in.room > flipped ? in.room : flipped;
    return EFL_OK;
}

static efl_window geometry(const efl_op_run *run) {
    efl_window w = window_of(run->shapes);
    efl_error error;
    efl_window_read(&w, run->shapes->node->ints, 1, &error);
    return w;
}

static void forward(const efl_op_run *run) {
    const efl_window w = geometry(run);
    const efl_padded in = efl_pad_input(&w, 1);
    const int64_t groups = run->shapes->node->ints[8], depth = w.x[2] / groups, out = w.y[2] / groups;
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, run->batch - first);
        const float *x = efl_pad(&in, run->scratch, run->x[0] + first * efl_image_size(w.x), n);
        efl_product p = efl_window_product(&w, &in, n, w.y[2], depth, w.y[2]);
        p.n = out;
        for (int64_t g = 0; g < groups && !efl_stopped(run); g++) {
            p.a = x + g * depth;
            p.b = run->w[0] + g * out;
            p.bias = run->w[1] == NULL ? NULL : run->w[1] + g * out;
            p.c = run->y + first * efl_image_size(w.y) + g * out;
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

static void backward_weight(const efl_op_run *run, const efl_window *w) {
    const efl_padded in = efl_pad_input(w, 1);
    const int64_t groups = run->shapes->node->ints[8], depth = w->x[2] / groups, out = w->y[2] / groups;
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, run->batch - first);
        const float *x = efl_pad(&in, run->scratch, run->x[0] + first * efl_image_size(w->x), n);
        efl_product p = efl_window_product(w, &in, n, w->y[2], depth, w->y[2]);
        efl_product_exchange(&p);
        p.n = out;
        p.accumulate = 1;
        for (int64_t g = 0; g < groups && !efl_stopped(run); g++) {
            p.a = x + g * depth;
            p.b = run->dy + first * efl_image_size(w->y) + g * out;
            p.c = run->dw[0] + g * out;
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

/* The product of one residue for all groups, with weights (KH, KW, O, C / groups). */
static void backward_residue(const efl_op_run *run, const efl_window *w, const efl_padded *padded, const float *dy,
                             const float *weight, float *dx, int64_t n, int64_t row, int64_t column) {
    const int64_t groups = run->shapes->node->ints[8], depth = w->x[2] / groups, out = w->y[2] / groups;
    int64_t offsets[3];
    efl_product p;
    if (!efl_window_residue(&p, offsets, w, padded, n, row, column, w->x[2], w->y[2], depth)) return;
    p.n = depth;
    p.k[2] = out;
    for (int64_t g = 0; g < groups && !efl_stopped(run); g++) {
        p.a = dy + offsets[0] + g * out;
        p.b = weight + offsets[1] + g * out * depth;
        p.c = dx + offsets[2] + g * depth;
        efl_product_pieces(run, efl_kernels->product, &p);
    }
}

static void backward_input(const efl_op_run *run, const efl_window *w) {
    const efl_padded padded = efl_pad_output(w, w->y[2]);
    const efl_shape *k = &run->shapes->w[0];
    const int64_t size = efl_image_size(w->x);
    float *weight = run->scratch, *room = weight + efl_shape_size(k);
    efl_kernels->transpose(weight, run->w[0], k->dim[0] * k->dim[1], k->dim[2], k->dim[3]);
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(padded.group, run->batch - first);
        float *dx = run->dx[0] + first * size;
        const float *dy = efl_pad(&padded, room, run->dy + first * efl_image_size(w->y), n);
        /* Pixels between strides may reach no output. */
        if (w->stride[0] > 1 || w->stride[1] > 1) memset(dx, 0, (size_t)(n * size) * sizeof *dx);
        for (int64_t row = 0; row < efl_smaller(w->stride[0], w->x[0]); row++)
            for (int64_t column = 0; column < efl_smaller(w->stride[1], w->x[1]) && !efl_stopped(run); column++)
                backward_residue(run, w, &padded, dy, weight, dx, n, row, column);
    }
}

static void backward(const efl_op_run *run) {
    const efl_window w = geometry(run);
    if (run->dx[0] != NULL) backward_input(run, &w);
    if (run->dw[0] != NULL) backward_weight(run, &w);
    if (run->dw[1] != NULL) efl_kernels->add_rows(run->dw[1], run->dy, run->batch * w.y[0] * w.y[1], w.y[2]);
}

const efl_op efl_op_conv = {
    .name = "conv",
    .flags = EFL_READS_X,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 2,
    .num_ints = 9,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
