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

/* Sets the scratch that any of the three needs. Returns 0 if an image is too large with its padding. */
int efl_convolution_room(efl_op_shapes *s, const efl_convolution *c);

/* y = windows of x times w + bias(O); bias may be NULL. */
void efl_convolution_output(const efl_op_run *run, const efl_convolution *c, float *y, const float *x, const float *w,
                            const float *bias);
/* x = what y, or its gradient, sends back through w, + bias(C); bias may be NULL. */
void efl_convolution_input(const efl_op_run *run, const efl_convolution *c, float *x, const float *y, const float *w,
                           const float *bias);
/* The gradients of params: dw += windows of x times y; db(N) += the rows of dy(M,N). Either may be NULL. */
typedef struct {
    float *dw;
    const float *x, *y;
    float *db;
    const float *dy;
    int64_t m, n;
} efl_convolution_params;

void efl_convolution_gradients(const efl_op_run *run, const efl_convolution *c, const efl_convolution_params *params);

#endif
