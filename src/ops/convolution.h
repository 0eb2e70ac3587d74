/* convolution.h: the three products of a convolution, which conv.c and conv_transpose.c share: what is forward for one
 * of them is the input's gradient of the other.
 *
 * y(OH, OW, O) = windows of x(H, W, C) times w(KH, KW, C / groups, O). `window` has x's and y's sizes. */
#ifndef EFL_CONVOLUTION_H
#define EFL_CONVOLUTION_H

#include "window.h"

typedef struct {
    efl_window window;
    int64_t groups;
} efl_convolution;

/* Floats of scratch that any of the three needs; -1 if an image is too large with its padding. */
int64_t efl_convolution_room(const efl_convolution *c);

/* y = windows of x times w + bias(O); bias may be NULL. */
void efl_convolution_output(const efl_op_run *run, const efl_convolution *c, float *y, const float *x, const float *w,
                            const float *bias);
/* x = what y, or its gradient, sends back through w, + bias(C); bias may be NULL. */
void efl_convolution_input(const efl_op_run *run, const efl_convolution *c, float *x, const float *y, const float *w,
                           const float *bias);
/* dw += windows of x times y. */
void efl_convolution_weight(const efl_op_run *run, const efl_convolution *c, float *dw, const float *x, const float *y);

#endif
