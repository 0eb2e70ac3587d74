/* conv_part.c: a conv of one group, or a dense layer, of whose weight only some input channels are trained (Lin et al.
 * 2022, arXiv:2206.15472: sub-tensors). Backward needs these channels of x alone, so forward saves them, and x itself
 * may be overwritten.
 *
 * Params: T(KH, KW, trained channels, O), F(KH, KW, the others, O), each in ascending order, and b(O) or not. Ints:
 * stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right, dil_h, dil_w, and words of 52 bits, from the lowest on:
 * bit i % 52 of word i / 52 is 1 if channel i is trained. T and F of two axes: a dense layer along the last axis of x,
 * with the window 1, 1, 0, 0, 0, 0, 1, 1.
 *
 * The whole weight is put together in scratch before it is read, so results have the bits of a conv's.
 */
#include "convolution.h"
#include "parts.h"
#include "pieces.h"

#include <string.h>

enum { WINDOW = 8 /* ints before the words */, BITS = 52 /* of a word: a double holds them */ };

/* The trained weight as a conv of its own, on the channels that are saved; and the whole one. */
typedef struct {
    efl_convolution part, whole;
} convolutions;

static int is_dense(const efl_op_shapes *s) {
    return s->w[0].ndim == 2;
}

static int is_one_pixel(const int64_t *ints) {
    static const int64_t pixel[WINDOW] = {1, 1, 0, 0, 0, 0, 1, 1};
    return memcmp(ints, pixel, sizeof pixel) == 0;
}

/* The size of an axis, counted from the last one. */
static int64_t from_last(const efl_shape *shape, int axis) {
    return shape->dim[shape->ndim - 1 - axis];
}

static int64_t weights_of(const efl_op_shapes *s) {
    return efl_shape_size(&s->w[0]) + efl_shape_size(&s->w[1]);
}

static int is_trained(const efl_node *node, int64_t channel) {
    return node->ints[WINDOW + channel / BITS] >> channel % BITS & 1;
}

static convolutions shaped(const efl_op_shapes *s) {
    const efl_shape *x = &s->x[0], *w = &s->w[0];
    const int64_t channels = from_last(x, 0), pixels = efl_shape_size(x) / channels;
    const efl_convolution c = {
        .window = {.x = {is_dense(s) ? 1 : x->dim[0], is_dense(s) ? pixels : x->dim[1], channels},
                   .y = {0, 0, from_last(w, 0)},
                   .kernel = {is_dense(s) ? 1 : w->dim[0], is_dense(s) ? 1 : w->dim[1]}},
        .groups = 1};
    convolutions both = {c, c};
    both.part.window.x[2] = from_last(w, 1);
    return both;
}

static int same_but_channels(const efl_shape *a, const efl_shape *b) {
    int same = a->ndim == b->ndim;
    for (int i = 0; i < a->ndim && same; i++) same = i == a->ndim - 2 || a->dim[i] == b->dim[i];
    return same;
}

/* As many channels as T has, and no bits beside them. */
static int words_fit(const efl_op_shapes *s) {
    const int64_t channels = from_last(&s->x[0], 0), words = (channels + BITS - 1) / BITS;
    int64_t count = 0;
    if (s->node->num_ints != WINDOW + words) return 0;
    for (int64_t i = 0; i < words; i++) {
        const int64_t word = s->node->ints[WINDOW + i], bits = efl_smaller(BITS, channels - i * BITS);
        if (word < 0 || word >> bits != 0) return 0;
        count += __builtin_popcountll((unsigned long long)word);
    }
    return count == from_last(&s->w[0], 1);
}

static int check(const efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *t = &s->w[0], *f = &s->w[1], *b = &s->w[2];
    if ((t->ndim != 4 || x->ndim != 3) && (t->ndim != 2 || x->ndim < 1))
        return efl_fail(error, EFL_MODEL, "needs an input (H, W, C) and weights of 4 axes, or weights of 2 axes");
    if (!same_but_channels(t, f) || from_last(t, 1) + from_last(f, 1) != from_last(x, 0))
        return efl_fail(error, EFL_MODEL, "needs two weights that share the channels of the input");
    if (!words_fit(s)) return efl_fail(error, EFL_MODEL, "needs a bit for each channel that is trained");
    if (is_dense(s) && !is_one_pixel(s->node->ints))
        return efl_fail(error, EFL_MODEL, "needs a window of one pixel for a dense layer");
    if (s->node->num_params == 3 && (b->ndim != 1 || b->dim[0] != from_last(t, 0)))
        return efl_fail(error, EFL_MODEL, "needs a bias (O)");
    return EFL_OK;
}

/* That of the whole convolution, or of the part where it needs more; behind it the weight. */
static int find_room(efl_op_shapes *s, const convolutions *c) {
    efl_op_shapes part = *s;
    if (!efl_convolution_room(s, &c->whole) || !efl_convolution_room(&part, &c->part)) return 0;
    if (part.scratch.fixed > s->scratch.fixed) s->scratch.fixed = part.scratch.fixed;
    if (part.own > s->own) s->own = part.own;
    s->sums = part.sums;
    s->scratch.fixed += weights_of(s);
    return 1;
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0];
    if (check(s, error) != EFL_OK) return error->code;
    convolutions c = shaped(s);
    const efl_window *win = &c.whole.window;
    if (efl_window_read(&c.whole.window, s->node->ints, 1, error) != EFL_OK ||
        efl_window_read(&c.part.window, s->node->ints, 1, error) != EFL_OK)
        return error->code;
    s->y = (efl_shape){.ndim = 3, .dim = {win->y[0], win->y[1], win->y[2]}};
    if (is_dense(s)) {
        s->y = *x;
        s->y.dim[x->ndim - 1] = win->y[2];
    }
    if (efl_shape_size(&s->y) < 0 || !find_room(s, &c))
        return efl_fail(error, EFL_MODEL, "has an output too large with its padding");
    s->flops = 2 * (efl_shape_size(&s->y) / win->y[2]) * weights_of(s);
    s->saved.per_sample = efl_shape_size(x) / win->x[2] * c.part.window.x[2];
    return EFL_OK;
}

static convolutions geometry(const efl_op_run *run) {
    convolutions c = shaped(run->shapes);
    efl_error error;
    efl_window_read(&c.whole.window, run->shapes->node->ints, 1, &error);
    efl_window_read(&c.part.window, run->shapes->node->ints, 1, &error);
    return c;
}

/* W(KH, KW, C, O), behind all other scratch. */
static const float *put_together(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    const int64_t out = from_last(&s->w[0], 0), channels = from_last(&s->x[0], 0), weights = weights_of(s);
    const float *from[2] = {run->w[1], run->w[0]};
    float *whole = run->scratch + s->scratch.fixed - weights;
    for (int64_t row = 0; row < weights / out; row++) {
        const float **part = &from[is_trained(s->node, row % channels)];
        memcpy(whole + row * out, *part, (size_t)out * sizeof *whole);
        *part += out;
    }
    return whole;
}

/* Neighbours among the trained channels are copied together. */
static void save_part(const efl_op_run *run, efl_share share, const void *context) {
    const convolutions *c = context;
    const efl_node *node = run->shapes->node;
    const efl_op_run part = efl_samples_of(run, share);
    const int64_t wide = c->whole.window.x[2], kept = c->part.window.x[2];
    const int64_t pixels = c->whole.window.x[0] * c->whole.window.x[1];
    for (int64_t n = 0; n < part.batch && !efl_stopped(run); n++) {
        float *to = part.saved + n * pixels * kept;
        for (int64_t first = 0, end; first < wide; first = end) {
            for (end = first + 1; end < wide && is_trained(node, end) == is_trained(node, first);) end++;
            if (!is_trained(node, first)) continue;
            efl_kernels->copy_strided(to, kept, 1, part.x[0] + n * pixels * wide + first, wide, 1, pixels, end - first);
            to += end - first;
        }
    }
}

static void forward(const efl_op_run *run) {
    const convolutions c = geometry(run);
    const double moved = EFL_ELEMENT * (double)run->batch * (double)run->shapes->saved.per_sample;
    if (run->training) efl_parallel(run, efl_parts(run, moved, run->batch), save_part, &c);
    efl_convolution_output(run, &c.whole, run->y, run->x[0], put_together(run), run->w[2]);
}

static void backward(const efl_op_run *run) {
    const convolutions c = geometry(run);
    const int64_t *y = c.whole.window.y;
    if (run->dx[0] != NULL) efl_convolution_input(run, &c.whole, run->dx[0], run->dy, put_together(run), NULL);
    efl_convolution_gradients(run, &c.part,
                              &(efl_convolution_params){run->dw[0], run->saved, run->dy, run->dw[2], run->dy,
                                                        run->batch * y[0] * y[1], y[2]});
}

const efl_op efl_op_conv_part = {
    .name = "conv_part",
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 2,
    .max_params = 3,
    .num_ints = -1,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
