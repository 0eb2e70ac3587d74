/* winograd.c: see winograd.h. */
#include "winograd.h"

#include "pieces.h"

enum {
    TILES = 64,       /* in a block: its transforms stay in the second cache */
    CHANNELS = 32,    /* least */
    APART = 16,       /* floats between the arrays of a block, or all would fall into the same sets of the cache */
    LARGEST = 1 << 15 /* product of the channels: with more, u comes from afar for too few tiles */
};

int efl_winograd_fits(const efl_window *w, int64_t groups, const int64_t *x, const int64_t *y) {
    for (int i = 0; i < 2; i++)
        if (w->kernel[i] != 3 || w->stride[i] != 1 || w->dilation[i] != 1 || y[i] % 2 != 0 || x[i] != y[i] + 2)
            return 0;
    return groups == 1 && x[2] >= CHANNELS && y[2] >= CHANNELS && x[2] * y[2] <= LARGEST;
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
        efl_kernels->winograd_input(v, v_apart, padded, tiles, from, to, c);
        for (int e = 0; e < 16; e++)
            efl_gemm(run, m + e * m_apart, v + e * v_apart, c, 1, u + e * c * o, NULL, to - from, o, c, 0);
        efl_kernels->winograd_output(y, m, m_apart, bias, tiles, from, to, o);
    }
}
