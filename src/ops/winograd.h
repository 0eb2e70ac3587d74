/* winograd.h: when a convolution goes through Winograd's transforms (kernels/winograd.c), and how.
 *
 * Chosen by shape alone: a kernel of 3 x 3, stride and dilation 1, one group, an even number of rows and of columns,
 * channels enough to outweigh the transforms, and tiles enough to outweigh the weights' transforms. These are an
 * image's tiles, so that a sample has the same bits in any batch; in the gradient of the weights the batch's. Results
 * differ from the plain sum's by rounding: about 3 times its error. */
#ifndef EFL_WINOGRAD_H
#define EFL_WINOGRAD_H

#include "window.h"

/* Whether the products of images with so many channels into y(rows, columns, channels) go this way. */
int efl_winograd_fits(const efl_window *w, int64_t groups, const int64_t *x, const int64_t *y);
/* Floats of u, the weights' transforms, and of the room that a thread needs for its tiles. */
int64_t efl_winograd_weights_room(const efl_window *w);
int64_t efl_winograd_tiles_room(const efl_window *w);
/* u from w(3,3,C,O); turned: the taps in reverse order, as for an input's gradient. */
void efl_winograd_weights(const efl_window *w, float *u, const float *weight, int turned);
/* y(n, rows, columns, O) = windows of padded(n, rows + 2, columns + 2, C) times the weights, + bias(O) or not.
 * y's and padded's channels are the last of `y` and `x`. */
void efl_winograd(const efl_op_run *run, float *y, const float *padded, const float *u, const float *bias, int64_t n,
                  const int64_t *x_size, const int64_t *y_size, float *room);

/* The gradient of the weights: whether that of so many images goes this way, and dw(3,3,C,O) +=. Threads share the
 * tiles of a block, and then the 16 products; any number gives the same bits. `room` has efl_winograd_gradient_room
 * floats, the padded images included; 0: no number of images goes this way. */
int efl_winograd_gradient_fits(const efl_window *w, int64_t groups, const int64_t *x, int64_t batch);
int64_t efl_winograd_gradient_room(const efl_window *w, int64_t groups, const efl_padded *x);
void efl_winograd_gradient(const efl_op_run *run, const efl_window *w, float *dw, const float *x, const float *dy,
                           float *room);

#endif
