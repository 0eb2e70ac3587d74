/* convolution.c: see convolution.h. */
#include "convolution.h"
#include "pieces.h"

#include <string.h>

static int64_t weight_size(const efl_convolution *c) {
    const efl_window *w = &c->window;
    return w->kernel[0] * w->kernel[1] * (w->x[2] / c->groups) * w->y[2];
}

int64_t efl_convolution_room(const efl_convolution *c) {
    const efl_window *w = &c->window;
    const efl_padded in = efl_pad_input(w, 1), out = efl_pad_output(w, w->y[2]);
    const int64_t turned = weight_size(c) + out.room;
    if (efl_shape_size(&(efl_shape){.ndim = 3, .dim = {out.size[0], out.size[1], out.size[2]}}) < 0) return -1;
    return in.room > turned ? in.room : turned;
}

void efl_convolution_output(const efl_op_run *run, const efl_convolution *c, float *y, const float *x, const float *w,
                            const float *bias) {
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups;
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, run->batch - first);
        const float *padded = efl_pad(&in, run->scratch, x + first * efl_image_size(win->x), n);
        efl_product p = efl_window_product(win, &in, n, win->y[2], depth, win->y[2]);
        p.n = out;
        for (int64_t g = 0; g < c->groups && !efl_stopped(run); g++) {
            p.a = padded + g * depth;
            p.b = w + g * out;
            p.bias = bias == NULL ? NULL : bias + g * out;
            p.c = y + first * efl_image_size(win->y) + g * out;
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

void efl_convolution_weight(const efl_op_run *run, const efl_convolution *c, float *dw, const float *x,
                            const float *y) {
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups;
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, run->batch - first);
        const float *padded = efl_pad(&in, run->scratch, x + first * efl_image_size(win->x), n);
        efl_product p = efl_window_product(win, &in, n, win->y[2], depth, win->y[2]);
        efl_product_exchange(&p);
        p.n = out;
        p.accumulate = 1;
        for (int64_t g = 0; g < c->groups && !efl_stopped(run); g++) {
            p.a = padded + g * depth;
            p.b = y + first * efl_image_size(win->y) + g * out;
            p.c = dw + g * out;
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

/* The product of one residue for all groups, with weights (KH, KW, O, C / groups). */
static void residue_input(const efl_op_run *run, const efl_convolution *c, const efl_padded *padded, float *x,
                          const float *y, const float *weight, const float *bias, int64_t n, const int64_t at[2]) {
    const efl_window *win = &c->window;
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups;
    int64_t offsets[3];
    efl_product p;
    if (!efl_window_residue(&p, offsets, win, padded, n, at[0], at[1], win->x[2], win->y[2], depth)) return;
    p.n = depth;
    p.k[2] = out;
    for (int64_t g = 0; g < c->groups && !efl_stopped(run); g++) {
        p.a = y + offsets[0] + g * out;
        p.b = weight + offsets[1] + g * out * depth;
        p.bias = bias == NULL ? NULL : bias + g * depth;
        p.c = x + offsets[2] + g * depth;
        efl_product_pieces(run, efl_kernels->product, &p);
    }
}

/* Pixels between strides may reach no output: x is the bias there. */
static void fill(float *x, const float *bias, int64_t pixels, int64_t channels) {
    if (bias == NULL) memset(x, 0, (size_t)(pixels * channels) * sizeof *x);
    for (int64_t i = 0; bias != NULL && i < pixels; i++) memcpy(x + i * channels, bias, (size_t)channels * sizeof *x);
}

void efl_convolution_input(const efl_op_run *run, const efl_convolution *c, float *x, const float *y, const float *w,
                           const float *bias) {
    const efl_window *win = &c->window;
    const efl_padded padded = efl_pad_output(win, win->y[2]);
    const int64_t channels = win->x[2], size = efl_image_size(win->x);
    float *weight = run->scratch, *room = weight + weight_size(c);
    efl_kernels->transpose(weight, w, win->kernel[0] * win->kernel[1], channels / c->groups, win->y[2]);
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(padded.group, run->batch - first);
        float *to = x + first * size;
        const float *from = efl_pad(&padded, room, y + first * efl_image_size(win->y), n);
        if (win->stride[0] > 1 || win->stride[1] > 1) fill(to, bias, n * win->x[0] * win->x[1], channels);
        for (int64_t row = 0; row < efl_smaller(win->stride[0], win->x[0]); row++)
            for (int64_t column = 0; column < efl_smaller(win->stride[1], win->x[1]) && !efl_stopped(run); column++)
                residue_input(run, c, &padded, to, from, weight, bias, n, (const int64_t[]){row, column});
    }
}
