/* winograd.c: see winograd.h. */
#include "winograd.h"

#include "parts.h"
#include "pieces.h"

enum {
    TILES = 64,        /* in a block: its transforms stay in the second cache */
    CHANNELS = 32,     /* least */
    APART = 16,        /* floats between the arrays of a block, or all would fall into the same sets of the cache */
    SMALL = 1 << 15,   /* product of the channels, or `pairs`: u is near, however few tiles there are; */
    A_TILE = 5500,     /* otherwise pairs that u may have for each tile of its use, or reading it takes longer; */
    LARGEST = 1 << 16, /* and pairs of which u is kept, so that scratch stays small */
    SUMMED = 128,      /* in the weights' gradient: tiles whose products are added to u at once; */
    ROOM = 1 << 20,    /* or fewer: floats of a block's tiles, about; */
    FEWEST = 16        /* and tiles with fewer of which adding to u takes longer than the products */
};

/* Whether the transforms apply. */
static int applies(const efl_window *w, int64_t groups, const int64_t *x, const int64_t *y) {
    for (int i = 0; i < 2; i++)
        if (w->kernel[i] != 3 || w->stride[i] != 1 || w->dilation[i] != 1 || y[i] % 2 != 0 || x[i] != y[i] + 2)
            return 0;
    return groups == 1 && x[2] >= CHANNELS && y[2] >= CHANNELS;
}

int efl_winograd_fits(const efl_window *w, int64_t groups, const int64_t *x, const int64_t *y) {
    const int64_t pairs = x[2] * y[2], tiles = y[0] / 2 * (y[1] / 2);
    return applies(w, groups, x, y) && (pairs <= SMALL || (pairs <= LARGEST && pairs / A_TILE < tiles));
}

/* The weights' gradient has u of so many of x's channels at a time. */
static int64_t channels_at_once(const efl_window *w) {
    const int64_t most = SMALL / w->y[2];
    return efl_smaller(w->x[2], most < CHANNELS ? CHANNELS : most);
}

int efl_winograd_gradient_fits(const efl_window *w, int64_t groups, const int64_t *x, int64_t batch) {
    const int64_t pairs = x[2] * w->y[2], tiles = batch * (w->y[0] / 2) * (w->y[1] / 2);
    return applies(w, groups, x, w->y) && tiles >= FEWEST && pairs / A_TILE < tiles;
}

int64_t efl_winograd_weights_room(const efl_window *w) {
    return 16 * w->x[2] * w->y[2];
}

int64_t efl_winograd_tiles_room(const efl_window *w) {
    return 16 * (TILES * (w->x[2] + w->y[2]) + 2 * APART);
}

void efl_winograd_weights(const efl_window *w, float *u, const float *weight, int turned) {
    efl_kernels->winograd_weights(u, weight, turned, w->x[2] * w->y[2]);
}

void efl_winograd(const efl_op_run *run, float *y, const float *padded, const float *u, const float *bias, int64_t n,
                  const int64_t *x_size, const int64_t *y_size, float *room) {
    const int64_t tiles[2] = {y_size[0] / 2, y_size[1] / 2}, all = n * tiles[0] * tiles[1];
    const int64_t c = x_size[2], o = y_size[2], v_apart = TILES * c + APART, m_apart = TILES * o + APART;
    float *v = room, *m = room + 16 * v_apart;
    for (int64_t from = 0, to; from < all && !efl_stopped(run); from = to) {
        to = efl_smaller(from + TILES, all);
        efl_kernels->winograd_input(v, v_apart, padded, tiles, from, to, c, c);
        for (int e = 0; e < 16; e++)
            efl_gemm(run, m + e * m_apart, v + e * v_apart, c, 1, u + e * c * o, NULL, to - from, o, c, 0);
        efl_kernels->winograd_output(y, m, m_apart, bias, tiles, from, to, o);
    }
}

/* The weights' gradient, for some channels of x: tiles wait in v and m until there are `most`. */
typedef struct {
    int64_t c, wide, o, tiles[2]; /* wide: all channels */
    float *u, *v, *m;
    int64_t v_apart, m_apart;
    int64_t most, waiting;
    int begun; /* u has sums in it */
} sums;

static int64_t most_tiles(const efl_window *w) {
    const int64_t tiles = ROOM / (16 * (channels_at_once(w) + w->y[2]));
    return tiles > SUMMED ? SUMMED : tiles < TILES ? TILES : tiles;
}

int64_t efl_winograd_gradient_room(const efl_window *w, int64_t groups, const efl_padded *x) {
    const int64_t c = channels_at_once(w), o = w->y[2];
    if (!applies(w, groups, x->size, w->y)) return 0;
    return x->room + 16 * (c * o + most_tiles(w) * (c + o) + 2 * APART);
}

static sums sums_of(const efl_window *w, int64_t c, float *room) {
    const int64_t o = w->y[2], most = most_tiles(w);
    sums s = {.c = c, .wide = w->x[2], .o = o, .tiles = {w->y[0] / 2, w->y[1] / 2}, .u = room, .most = most};
    s.v_apart = most * c + APART;
    s.m_apart = most * o + APART;
    s.v = room + 16 * c * o;
    s.m = s.v + 16 * s.v_apart;
    return s;
}

/* Tiles `from` to `to` of images, to follow those that wait. */
typedef struct {
    const sums *s;
    const float *padded, *dy;
    int64_t from, to;
} block;

static void transform_part(const efl_op_run *run, efl_share share, const void *context) {
    const block *b = context;
    const sums *s = b->s;
    const int64_t first = efl_part_start(b->to - b->from, share.count, share.part, 1);
    const int64_t last = efl_part_start(b->to - b->from, share.count, share.part + 1, 1);
    (void)run;
    efl_kernels->winograd_input(s->v + (s->waiting + first) * s->c, s->v_apart, b->padded, s->tiles, b->from + first,
                                b->from + last, s->wide, s->c);
    efl_kernels->winograd_gradient(s->m + (s->waiting + first) * s->o, s->m_apart, b->dy, s->tiles, b->from + first,
                                   b->from + last, s->o);
}

static void products_part(const efl_op_run *run, efl_share share, const void *context) {
    const sums *s = context;
    const int64_t end = efl_part_start(16, share.count, share.part + 1, 1);
    for (int64_t e = efl_part_start(16, share.count, share.part, 1); e < end; e++)
        efl_gemm(run, s->u + e * s->c * s->o, s->v + e * s->v_apart, 1, s->c, s->m + e * s->m_apart, NULL, s->c, s->o,
                 s->waiting, s->begun);
}

static void multiply_waiting(const efl_op_run *run, sums *s) {
    const double flops = 32 * (double)s->c * (double)s->o * (double)s->waiting;
    if (s->waiting > 0) efl_parallel(run, efl_parts(run, flops, 16), products_part, s);
    s->begun |= s->waiting > 0;
    s->waiting = 0;
}

static void add_tiles(const efl_op_run *run, sums *s, const float *padded, const float *dy, int64_t n) {
    const int64_t all = n * s->tiles[0] * s->tiles[1];
    for (int64_t from = 0, to; from < all && !efl_stopped(run); from = to) {
        to = efl_smaller(from + s->most - s->waiting, all);
        const block b = {s, padded, dy, from, to};
        const double moved = 20 * (double)(to - from) * (double)(s->c + s->o);
        efl_parallel(run, efl_parts(run, EFL_ELEMENT * moved, to - from), transform_part, &b);
        s->waiting += to - from;
        if (s->waiting == s->most) multiply_waiting(run, s);
    }
}

void efl_winograd_gradient(const efl_op_run *run, const efl_window *w, float *dw, const float *x, const float *dy,
                           float *room) {
    const efl_padded in = efl_pad_input(w, 1);
    const int64_t at_once = channels_at_once(w);
    for (int64_t from = 0; from < w->x[2] && !efl_stopped(run); from += at_once) {
        sums s = sums_of(w, efl_smaller(at_once, w->x[2] - from), room + in.room);
        for (int64_t first = 0, n; first < run->batch && !efl_stopped(run); first += n) {
            n = efl_smaller(in.group, run->batch - first);
            const float *padded = efl_pad(&in, room, x + first * efl_image_size(w->x), n);
            add_tiles(run, &s, padded + from, dy + first * efl_image_size(w->y), n);
        }
        multiply_waiting(run, &s);
        if (!efl_stopped(run)) efl_kernels->winograd_weights_back(dw + from * s.o, s.wide * s.o, s.u, s.c * s.o);
    }
}
