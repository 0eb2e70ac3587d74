/* convolution.c: see convolution.h. */
#include "convolution.h"
#include "parts.h"
#include "pieces.h"

#include <string.h>

static int64_t weight_size(const efl_convolution *c) {
    const efl_window *w = &c->window;
    return w->kernel[0] * w->kernel[1] * (w->x[2] / c->groups) * w->y[2];
}

int efl_convolution_room(efl_op_shapes *s, const efl_convolution *c) {
    const efl_window *w = &c->window;
    const efl_padded in = efl_pad_input(w, 1), out = efl_pad_output(w, w->y[2]);
    const int64_t turned = weight_size(c) + out.room;
    if (efl_shape_size(&(efl_shape){.ndim = 3, .dim = {out.size[0], out.size[1], out.size[2]}}) < 0) return 0;
    s->scratch.fixed = in.room > turned ? in.room : turned;
    s->own = in.room > out.room ? in.room : out.room;
    return 1;
}

/* Each part pads its own samples, in its own room. */
typedef struct {
    const efl_convolution *c;
    float *to;
    const float *from, *w, *bias;
} images;

static void output_part(const efl_op_run *run, efl_share share, const void *context) {
    const images *im = context;
    const efl_convolution *c = im->c;
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups;
    const int64_t end = efl_part_start(run->batch, share.count, share.part + 1, 1);
    float *room = efl_room_of(run, share.slot, run->scratch);
    for (int64_t first = efl_part_start(run->batch, share.count, share.part, 1), n; first < end && !efl_stopped(run);
         first += n) {
        n = efl_smaller(in.group, end - first);
        const float *padded = efl_pad(&in, room, im->from + first * efl_image_size(win->x), n);
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
    const images all = {c, y, x, w, bias};
    efl_parallel(run, efl_parts(run, efl_operations(run), run->batch), output_part, &all);
}

typedef struct {
    const efl_convolution *c;
    const efl_convolution_params *params;
    int64_t parts; /* of dw; one more part is db */
    int level;     /* of dw's rows, along which its parts lie: 0 to 2, or 3 for groups */
} gradients;

/* The rows of a tile of `product`, so that parts end with whole tiles. */
enum { TILE = 6, GROUPS = 3 };

static int64_t extent_of(const efl_convolution *c, int level) {
    const efl_window *win = &c->window;
    return level == GROUPS ? c->groups : level == 2 ? win->x[2] / c->groups : win->kernel[level];
}

/* Each part pads x by itself, and this is to cost little beside its product. */
static gradients gradients_in_parts(const efl_op_run *run, const efl_convolution *c,
                                    const efl_convolution_params *params) {
    const efl_window *win = &c->window;
    const double pixel = (double)win->kernel[0] * (double)win->kernel[1] * (double)(win->y[2] / c->groups) /
                         (double)(win->stride[0] * win->stride[1]); /* multiplications for a number that is padded */
    const int64_t most = efl_pad_input(win, 1).room == 0 || pixel > 2000 ? EFL_MOST_PARTS : pixel > 500 ? 4 : 2;
    const int64_t wanted = efl_parts(run, efl_operations(run), most);
    gradients g = {.c = c, .params = params, .parts = 1};
    if (wanted == 1 || pixel < 100) return g;
    g.level = c->groups > 1                ? GROUPS
              : win->x[2] >= TILE * wanted ? 2
              : win->kernel[0] > 1         ? 0
              : win->kernel[1] > 1         ? 1
                                           : 2;
    const int64_t extent = extent_of(c, g.level);
    g.parts = extent < 2 * wanted && extent <= EFL_MOST_PARTS ? extent : efl_smaller(wanted, extent);
    return g;
}

static void weight_part(const efl_op_run *run, efl_share share, const gradients *g) {
    const efl_convolution *c = g->c;
    const efl_window *win = &c->window;
    const efl_padded in = efl_pad_input(win, 1);
    const int64_t depth = win->x[2] / c->groups, out = win->y[2] / c->groups, extent = extent_of(c, g->level);
    const int64_t step = g->level == 2 && extent >= TILE * g->parts ? TILE : 1;
    const int64_t from = efl_part_start(extent, g->parts, share.part, step);
    const int64_t to = efl_part_start(extent, g->parts, share.part + 1, step);
    float *room = efl_room_of(run, share.slot, run->scratch);
    for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
        n = efl_smaller(in.group, run->batch - first);
        const float *padded = efl_pad(&in, room, g->params->x + first * efl_image_size(win->x), n);
        efl_product p = efl_window_product(win, &in, n, win->y[2], depth, win->y[2]);
        efl_product_exchange(&p);
        p.n = out;
        p.accumulate = 1;
        const int64_t row = g->level == GROUPS ? 0 : from * p.a_m[g->level],
                      col = g->level == GROUPS ? 0 : from * p.c_m[g->level];
        if (g->level != GROUPS) p.m[g->level] = to - from;
        for (int64_t i = g->level == GROUPS ? from : 0; i < (g->level == GROUPS ? to : c->groups) && !efl_stopped(run);
             i++) {
            p.a = padded + i * depth + row;
            p.b = g->params->y + first * efl_image_size(win->y) + i * out;
            p.c = g->params->dw + i * out + col;
            efl_product_pieces(run, efl_kernels->product, &p);
        }
    }
}

static void gradient_part(const efl_op_run *run, efl_share share, const void *context) {
    const gradients *g = context;
    if (share.part < g->parts)
        weight_part(run, share, g);
    else
        efl_kernels->add_rows(g->params->db, g->params->dy, g->params->m, g->params->n);
}

void efl_convolution_gradients(const efl_op_run *run, const efl_convolution *c, const efl_convolution_params *params) {
    const gradients g = gradients_in_parts(run, c, params);
    if (params->dw != NULL && g.parts > 1) {
        efl_parallel(run, g.parts + (params->db != NULL), gradient_part, &g);
        return;
    }
    if (params->dw != NULL) weight_part(run, (efl_share){0, 1, 0}, &g);
    if (params->db != NULL) efl_kernels->add_rows(params->db, params->dy, params->m, params->n);
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
    float *room = efl_room_of(run, share.slot, run->scratch + weight_size(c));
    for (int64_t first = efl_part_start(run->batch, share.count, share.part, 1), n; first < end && !efl_stopped(run);
         first += n) {
        n = efl_smaller(padded.group, end - first);
        float *to = im->to + first * size;
        const float *from = efl_pad(&padded, room, im->from + first * efl_image_size(win->y), n);
        if (win->stride[0] > 1 || win->stride[1] > 1) fill(to, im->bias, n * win->x[0] * win->x[1], channels);
        for (int64_t row = 0; row < efl_smaller(win->stride[0], win->x[0]); row++)
            for (int64_t column = 0; column < efl_smaller(win->stride[1], win->x[1]) && !efl_stopped(run); column++)
                residue_input(run, c, &padded, to, from, im->w, im->bias, n, (const int64_t[]){row, column});
    }
}

void efl_convolution_input(const efl_op_run *run, const efl_convolution *c, float *x, const float *y, const float *w,
                           const float *bias) {
    const efl_window *win = &c->window;
    const images all = {c, x, y, run->scratch, bias};
    efl_kernels->transpose(run->scratch, w, win->kernel[0] * win->kernel[1], win->x[2] / c->groups, win->y[2]);
    efl_parallel(run, efl_parts(run, efl_operations(run), run->batch), input_part, &all);
}
