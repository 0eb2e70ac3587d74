/* window.h: the geometry that conv, depthwise and pooling share, and the products of the first two.
 *
 * Design:
 *   a) an image that needs padding is copied into scratch with it, a few samples at a time; taps never leave it.
 *   b) forward is one product: pixels (sample, row, column) times taps (row, column, channel). The weights' gradient
 *      is the same product with both exchanged.
 *   c) the input's gradient is one such product for every residue of its pixels modulo the stride, over the outputs
 *      (padded likewise) and the taps that can reach those pixels. Stride 1: one product, flipped taps.
 */
#ifndef EFL_WINDOW_H
#define EFL_WINDOW_H

#include "ops.h"

/* Reads strides, pads (top left bottom right) and, if has_dilation, dilations from ints; x and kernel must be there.
 * Writes the rest, y's channels aside. EFL_MODEL if it does not fit or is absurd. */
int efl_window_read(efl_window *w, const int64_t *ints, int has_dilation, efl_error *error);

/* Images (rows, columns, channels) inside their padding. */
typedef struct {
    int64_t image[3], size[3], before[2];
    int64_t group; /* images that are padded at once: several small ones, so that tiles are filled */
    int64_t room;  /* floats of scratch for them; 0 where there is nothing to pad, and no limit to group */
} efl_padded;

/* What x must be padded to, with every channel `repeat` times; what dy, of so many channels, must be padded to. */
efl_padded efl_pad_input(const efl_window *w, int64_t repeat);
efl_padded efl_pad_output(const efl_window *w, int64_t channels);
static inline int64_t efl_smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t efl_image_size(const int64_t *size) {
    return size[0] * size[1] * size[2];
}
/* x (n, image) itself, or its padded copy in scratch. */
const float *efl_pad(const efl_padded *p, float *scratch, const float *x, int64_t n);

/* m: the pixels of n outputs of y_channels; k: the taps, `depth` steps each. b's rows are b_row floats apart. */
efl_product efl_window_product(const efl_window *w, const efl_padded *x, int64_t n, int64_t y_channels, int64_t depth,
                               int64_t b_row);
/* Exchanges m with k and b with c, for sums over pixels at every tap. */
void efl_product_exchange(efl_product *p);
/* m: the pixels of n inputs of x_channels, from (row, column) in steps of the stride; k: the outputs that they reach
 * and the taps on the way, `depth` steps each; a, b, c are offsets into dy, w, dx. Returns 0 if no output is
 * reached. */
int efl_window_residue(efl_product *p, int64_t offsets[3], const efl_window *w, const efl_padded *dy, int64_t n,
                       int64_t row, int64_t column, int64_t x_channels, int64_t depth, int64_t b_row);

#endif
