/* window.c: see window.h. */
#include "window.h"

#include <string.h>

#define ABSURD ((int64_t)1 << 20)

static int out_of_range(const int64_t *ints, int count, int64_t least) {
    for (int i = 0; i < count; i++)
        if (ints[i] < least || ints[i] > ABSURD) return 1;
    return 0;
}

static int padded_fits(const efl_padded *p) {
    return efl_shape_size(&(efl_shape){.ndim = 3, .dim = {p->size[0], p->size[1], p->size[2]}}) > 0;
}

int efl_window_read(efl_window *w, const int64_t *ints, int has_dilation, efl_error *error) {
    if (out_of_range(ints, 2, 1) || out_of_range(ints + 2, 4, 0) || (has_dilation && out_of_range(ints + 6, 2, 1)))
        return efl_fail(error, EFL_MODEL, "needs strides and dilations of 1 to 2^20, pads of 0 to 2^20");
    for (int i = 0; i < 2; i++) {
        w->stride[i] = ints[i];
        w->before[i] = ints[2 + i];
        w->after[i] = ints[4 + i];
        w->dilation[i] = has_dilation ? ints[6 + i] : 1;
        const int64_t room = w->x[i] + w->before[i] + w->after[i] - ((w->kernel[i] - 1) * w->dilation[i] + 1);
        if (room < 0) return efl_fail(error, EFL_MODEL, "has a window larger than the padded input");
        w->y[i] = room / w->stride[i] + 1;
    }
    const efl_padded x = efl_pad_input(w, 1);
    if (!padded_fits(&x)) return efl_fail(error, EFL_MODEL, "has an input too large with its padding");
    return EFL_OK;
}

static void allot(efl_padded *p, const efl_window *w) {
    const int same = memcmp(p->image, p->size, sizeof p->image) == 0;
    const int64_t pixels = w->y[0] * w->y[1];
    p->group = same ? INT64_MAX : pixels > 128 ? 1 : pixels < 16 ? 16 : 256 / pixels;
    p->room = same || !padded_fits(p) ? 0 : p->group * efl_image_size(p->size); /* too large: callers refuse it */
}

efl_padded efl_pad_input(const efl_window *w, int64_t repeat) {
    efl_padded p = {.image = {w->x[0], w->x[1], w->x[2]}, .size = {0, 0, w->x[2] * repeat}};
    for (int i = 0; i < 2; i++) {
        p.before[i] = w->before[i];
        p.size[i] = w->before[i] + w->x[i] + w->after[i];
    }
    allot(&p, w);
    return p;
}

efl_padded efl_pad_output(const efl_window *w, int64_t channels) {
    efl_padded p = {.image = {w->y[0], w->y[1], channels}, .size = {0, 0, channels}};
    for (int i = 0; i < 2; i++) {
        const int64_t low = (w->kernel[i] - 1) * w->dilation[i] - w->before[i];
        const int64_t last = (w->x[i] - 1 + w->before[i]) / w->stride[i];
        p.before[i] = low > 0 ? (low + w->stride[i] - 1) / w->stride[i] : 0;
        p.size[i] = p.before[i] + (last >= w->y[i] ? last + 1 : w->y[i]);
    }
    allot(&p, w);
    return p;
}

static void copy_row(float *to, const float *from, int64_t pixels, int64_t channels, int64_t repeat) {
    if (repeat == 1) {
        memcpy(to, from, (size_t)(pixels * channels) * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < pixels * channels; i++)
        for (int64_t j = 0; j < repeat; j++) *to++ = from[i];
}

const float *efl_pad(const efl_padded *p, float *scratch, const float *x, int64_t n) {
    const int64_t channels = p->size[2], row = p->size[1] * channels, repeat = channels / p->image[2];
    const int64_t left = p->before[1] * channels, right = row - left - p->image[1] * channels;
    if (p->room == 0) return x;
    float *to = scratch;
    for (int64_t i = 0; i < n * p->size[0]; i++, to += row) {
        const int64_t from = i % p->size[0] - p->before[0];
        if (from < 0 || from >= p->image[0]) {
            memset(to, 0, (size_t)row * sizeof *to);
            continue;
        }
        memset(to, 0, (size_t)left * sizeof *to);
        copy_row(to + left, x, p->image[1], p->image[2], repeat);
        memset(to + row - right, 0, (size_t)right * sizeof *to);
        x += p->image[1] * p->image[2];
    }
    return scratch;
}

efl_product efl_window_product(const efl_window *w, const efl_padded *x, int64_t n, int64_t y_channels, int64_t depth,
                               int64_t b_row) {
    const int64_t pixel = x->size[2], row = x->size[1] * pixel;
    return (efl_product){.m = {n, w->y[0], w->y[1]},
                         .a_m = {x->size[0] * row, w->stride[0] * row, w->stride[1] * pixel},
                         .c_m = {w->y[0] * w->y[1] * y_channels, w->y[1] * y_channels, y_channels},
                         .k = {w->kernel[0], w->kernel[1], depth},
                         .a_k = {w->dilation[0] * row, w->dilation[1] * pixel, 1},
                         .b_k = {w->kernel[1] * depth * b_row, depth * b_row, b_row}};
}

void efl_product_exchange(efl_product *p) {
    const efl_product old = *p;
    memcpy(p->m, old.k, sizeof p->m);
    memcpy(p->k, old.m, sizeof p->k);
    memcpy(p->a_m, old.a_k, sizeof p->a_m);
    memcpy(p->a_k, old.a_m, sizeof p->a_k);
    memcpy(p->c_m, old.b_k, sizeof p->c_m);
    memcpy(p->b_k, old.c_m, sizeof p->b_k);
}

/* Along one axis: pixels first, first + stride, .. reach outputs through taps tap, tap + tap_step, .. */
typedef struct {
    int64_t pixels, taps, tap, tap_step;
    int64_t out, out_step; /* the output of the first pixel and tap; how much earlier that of the next tap is */
} residue;

static int64_t common_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static residue residue_of(const efl_window *w, int axis, int64_t first) {
    const int64_t stride = w->stride[axis], dilation = w->dilation[axis], place = first + w->before[axis];
    residue r = {.pixels = (w->x[axis] - 1 - first) / stride + 1,
                 .tap_step = stride / common_divisor(stride, dilation)};
    while (r.tap < w->kernel[axis] && (place - r.tap * dilation) % stride != 0) r.tap++;
    if (r.tap < w->kernel[axis]) r.taps = (w->kernel[axis] - 1 - r.tap) / r.tap_step + 1;
    r.out = (place - r.tap * dilation) / stride;
    r.out_step = r.tap_step * dilation / stride;
    return r;
}

int efl_window_residue(efl_product *p, int64_t offsets[3], const efl_window *w, const efl_padded *dy, int64_t n,
                       int64_t row, int64_t column, int64_t x_channels, int64_t depth, int64_t b_row) {
    const residue r = residue_of(w, 0, row), c = residue_of(w, 1, column);
    const int64_t pixel = dy->size[2], line = dy->size[1] * pixel, x_line = w->x[1] * x_channels;
    const int64_t tap = depth * b_row;
    offsets[0] = (r.out + dy->before[0]) * line + (c.out + dy->before[1]) * pixel;
    offsets[1] = (r.tap * w->kernel[1] + c.tap) * tap;
    offsets[2] = row * x_line + column * x_channels;
    *p = (efl_product){.m = {n, r.pixels, c.pixels},
                       .a_m = {dy->size[0] * line, line, pixel},
                       .c_m = {w->x[0] * x_line, w->stride[0] * x_line, w->stride[1] * x_channels},
                       .k = {r.taps, c.taps, depth},
                       .a_k = {-r.out_step * line, -c.out_step * pixel, 1},
                       .b_k = {r.tap_step * w->kernel[1] * tap, c.tap_step * tap, b_row}};
    return r.taps > 0 && c.taps > 0;
}
