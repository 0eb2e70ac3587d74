/* convolution.c: see convolution.h. */
#include "convolution.h"
#include "parts.h"
#include "pieces.h"
#include "winograd.h"

#include <string.h>

static int64_t weight_size(const efl_convolution *c) {
    const efl_window *w = &c->window;
    return w->kernel[0] * w->kernel[1] * (w->x[2] / c->groups) * w->y[2];
}

/* Parts of the gradients of params. Of small weights: some samples each, with sums of its own, so that each thread
 * reads the samples that it has in its cache. Of large ones: some of x's channels each, of all samples, which each part
 * pads by itself; one more part is db. */
enum { SMALL = 40000 /* floats */, FEW = 4, TILE = 6 /* rows of `product` */ };

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

int efl_convolution_room(efl_op_shapes *s, const efl_convolution *c) {
    const efl_window *w = &c->window;
    const efl_padded in = efl_pad_input(w, 1), out = efl_pad_output(w, w->y[2]);
    const int forward = efl_winograd_fits(w, c->groups, in.size, w->y),
              back = efl_winograd_fits(w, c->groups, out.size, w->x);
    const int64_t tiles = forward || back ? efl_winograd_tiles_room(w) : 0;
    const int64_t weights = forward || back ? efl_winograd_weights_room(w) : 0;
    const int64_t plain = in.room + (forward ? weights + tiles : 0);
    const int64_t rest = out.room + (back ? tiles : 0);
    const int64_t turned = back ? weights + larger(rest, weight_size(c)) : weight_size(c) + rest;
    const int64_t gradients = efl_winograd_gradient_room(w, c->groups, &in);
    if (efl_shape_size(&(efl_shape){.ndim = 3, .dim = {out.size[0], out.size[1], out.size[2]}}) < 0) return 0;
    s->scratch.fixed = larger(plain, turned);
    s->own = larger(in.room, out.room) + tiles;
    s->sums.fixed = weight_size(c) <= SMALL ? FEW * (weight_size(c) + larger(w->x[2], w->y[2])) : 0;
    s->sums.fixed = larger(s->sums.fixed, gradients - s->scratch.fixed);
    return 1;
}

/* Each part pads its own samples, in its own room. */
typedef struct {
    const efl_convolution *c;
    float *to;
    const float *from, *w, *bias;
    const float *u;  /* the weights' transforms, or NULL: winograd.h */
    float *room;     /* the first thread's */
} images;

static void output_part(const efl_op_run *run, efl_share share, const void *context) {
    const images *im = context;
    const efl_convolution *c = im->c;
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups;
    const int64_t end = efl_part_start(run->batch, share.count, share.part + 1, 1);
    float *room = efl_room_of(run, share.slot, im->room);
    for (int64_t first = efl_part_start(run->batch, share.count, share.part, 1), n; first < end && !efl_stopped(run);
         first += n) {
        n = efl_smaller(in.group, end - first);
        const float *padded = efl_pad(&in, room, im->from + first * efl_image_size(win->x), n);
        if (im->u != NULL) {
            efl_winograd(run, im->to + first * efl_image_size(win->y), padded, im->u, im->bias, n, in.size, win->y,
                         room + in.room);
            continue;
        }
        efl_product p = efl_window_product(win, &in, n, win->y[2], depth, win->y[2]);
        p.n = out;
        for (int64_t g = 0; g < c->groups && !efl_stopped(run); g++) {
            p.a = padded + g * depth;
            p.b = im->w + g * out;
            p.bias = im->bias == NULL ? NULL : im->bias + g * out;
            p.c = im->to + first * efl_image_size(win->y) + g * out;
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

void efl_convolution_output(const efl_op_run *run, const efl_convolution *c, float *y, const float *x, const float *w,
                            const float *bias) {
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int transformed = efl_winograd_fits(win, c->groups, in.size, win->y);
    float *u = run->scratch;
    const images all = {
        c, y, x, w, bias, transformed ? u : NULL, u + (transformed ? efl_winograd_weights_room(win) : 0)};
    if (transformed) efl_winograd_weights(win, u, w, 0);
    efl_parallel(run, efl_parts(run, efl_operations(run), run->batch), output_part, &all);
}

typedef struct {
    const efl_convolution *c;
    const efl_convolution_params *params;
    int64_t parts; /* of dw */
    float *sums;   /* (parts, dw then db), or NULL: parts are channels */
} gradients;

/* dw(windows, from these channels on of each group, O) += those of samples `first` to `last`. */
static void add_weights(const efl_op_run *run, const gradients *g, float *room, float *dw, int64_t first, int64_t last,
                        int64_t channel, int64_t channels) {
    const efl_convolution *c = g->c;
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups;
    for (int64_t n; first < last && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, last - first);
        const float *padded = efl_pad(&in, room, g->params->x + first * efl_image_size(win->x), n);
        efl_product p = efl_window_product(win, &in, n, win->y[2], depth, win->y[2]);
        efl_product_exchange(&p);
        p.n = out;
        p.accumulate = 1;
        p.m[2] = channels;
        for (int64_t i = 0; i < c->groups && !efl_stopped(run); i++) {
            p.a = padded + i * depth + channel * p.a_m[2];
            p.b = g->params->y + first * efl_image_size(win->y) + i * out;
            p.c = dw + i * out + channel * p.c_m[2];
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

static void samples_part(const efl_op_run *run, efl_share share, const gradients *g) {
    const efl_convolution_params *p = g->params;
    const int64_t first = efl_part_start(run->batch, share.count, share.part, 1), rows = p->m / run->batch;
    const int64_t last = efl_part_start(run->batch, share.count, share.part + 1, 1), weights = weight_size(g->c);
    float *dw = g->sums + share.part * (weights + p->n), *db = dw + weights;
    memset(dw, 0, (size_t)(weights + p->n) * sizeof *dw);
    if (p->dw != NULL)
        add_weights(run, g, efl_room_of(run, share.slot, run->scratch), dw, first, last, 0,
                    g->c->window.x[2] / g->c->groups);
    if (p->db != NULL) efl_kernels->add_rows(db, p->dy + first * rows * p->n, (last - first) * rows, p->n);
}

static void gradient_part(const efl_op_run *run, efl_share share, const void *context) {
    const gradients *g = context;
    const int64_t depth = g->c->window.x[2] / g->c->groups;
    if (g->sums != NULL) {
        samples_part(run, share, g);
    } else if (share.part < g->parts) {
        const int64_t from = efl_part_start(depth, g->parts, share.part, g->parts == 1 ? 1 : TILE);
        const int64_t to = efl_part_start(depth, g->parts, share.part + 1, TILE);
        add_weights(run, g, efl_room_of(run, share.slot, run->scratch), g->params->dw, 0, run->batch, from, to - from);
    } else {
        efl_kernels->add_rows(g->params->db, g->params->dy, g->params->m, g->params->n);
    }
}

void efl_convolution_gradients(const efl_op_run *run, const efl_convolution *c, const efl_convolution_params *given) {
    efl_convolution_params rest = *given;
    const efl_convolution_params *params = &rest;
    const efl_padded in = efl_pad_input(&c->window, 1);
    if (given->dw != NULL && efl_winograd_gradient_fits(&c->window, c->groups, in.size, run->batch)) {
        efl_winograd_gradient(run, &c->window, given->dw, given->x, given->y, run->scratch);
        rest.dw = NULL;
    }
    const int64_t weights = weight_size(c), channels = c->window.x[2] / c->groups / (2 * TILE);
    const int64_t most = weights <= SMALL ? efl_smaller(FEW, run->batch) : channels;
    gradients g = {c, params, params->dw == NULL ? 1 : efl_parts(run, efl_operations(run), most), NULL};
    if (g.parts > 1 && weights <= SMALL) {
        g.sums = run->scratch + run->shapes->scratch.fixed;
        efl_parallel(run, g.parts, gradient_part, &g);
        for (int64_t i = 0; i < g.parts; i++) {
            const float *sums = g.sums + i * (weights + params->n);
            efl_kernels->add(params->dw, sums, weights);
            if (params->db != NULL) efl_kernels->add(params->db, sums + weights, params->n);
        }
    } else if (g.parts > 1) {
        efl_parallel(run, g.parts + (params->db != NULL), gradient_part, &g);
    } else {
        if (params->dw != NULL) gradient_part(run, (efl_share){0, 1, 0}, &g);
        if (params->db != NULL) gradient_part(run, (efl_share){1, 2, 0}, &g);
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

static void input_part(const efl_op_run *run, efl_share share, const void *context) {
    const images *im = context;
    const efl_convolution *c = im->c;
    const efl_window *win = &c->window;
    const efl_padded padded = efl_pad_output(win, win->y[2]);
    const int64_t channels = win->x[2], size = efl_image_size(win->x);
    const int64_t end = efl_part_start(run->batch, share.count, share.part + 1, 1);
    float *room = efl_room_of(run, share.slot, im->room);
    for (int64_t first = efl_part_start(run->batch, share.count, share.part, 1), n; first < end && !efl_stopped(run);
         first += n) {
        n = efl_smaller(padded.group, end - first);
        float *to = im->to + first * size;
        const float *from = efl_pad(&padded, room, im->from + first * efl_image_size(win->y), n);
        if (im->u != NULL) {
            efl_winograd(run, to, from, im->u, im->bias, n, padded.size, win->x, room + padded.room);
            continue;
        }
        if (win->stride[0] > 1 || win->stride[1] > 1) fill(to, im->bias, n * win->x[0] * win->x[1], channels);
        for (int64_t row = 0; row < efl_smaller(win->stride[0], win->x[0]); row++)
            for (int64_t column = 0; column < efl_smaller(win->stride[1], win->x[1]) && !efl_stopped(run); column++)
                residue_input(run, c, &padded, to, from, im->w, im->bias, n, (const int64_t[]){row, column});
    }
}

void efl_convolution_input(const efl_op_run *run, const efl_convolution *c, float *x, const float *y, const float *w,
                           const float *bias) {
    const efl_window *win = &c->window;
    const efl_padded out = efl_pad_output(win, win->y[2]);
    const int transformed = efl_winograd_fits(win, c->groups, out.size, win->x);
    float *u = run->scratch, *turned = u + (transformed ? efl_winograd_weights_room(win) : 0);
    const images all = {c, x, y, turned, bias, transformed ? u : NULL, turned + (transformed ? 0 : weight_size(c))};
    efl_kernels->transpose(turned, w, win->kernel[0] * win->kernel[1], win->x[2] / c->groups, win->y[2]);
    if (transformed) efl_winograd_weights(win, u, turned, 1);
    efl_parallel(run, efl_parts(run, efl_operations(run), run->batch), input_part, &all);
}
