/* recurrent.h: what lstm.c and gru.c share: their geometry, and the way between (B, T, ...) outside and (T, B, ...)
 * inside, where each step of a batch is contiguous.
 *
 * x (T, I); params Wx (D, I, GH), Wh (D, H, GH), bx (D, GH), bh (D, GH) with G gates; ints hidden H, direction
 * (0 forward, 1 reverse, 2 both: D = 2), output (0: every step, (T, D*H); 1: the last hidden state, (D*H)), then
 * the op's own. The initial state is zero. Inside, a reversed sequence simply runs the other way: its step 0 is T-1.
 */
#ifndef EFL_RECURRENT_H
#define EFL_RECURRENT_H

#include "ops.h"

typedef struct {
    int64_t time, in, hidden, width; /* T, I, H, GH */
    int directions;                  /* D */
    int last;                        /* y is the last hidden state only */
} efl_recurrent;

/* Checks the node and fills y, flops and the scratch of efl_time_major. */
int efl_recurrent_infer(efl_op_shapes *s, int64_t gates, efl_error *error);
efl_recurrent efl_recurrent_of(const efl_op_shapes *s);

/* The sequence in the time order of direction d, scratch(T, B, I) = x(B, T, I). */
void efl_time_major(const efl_op_run *run, const efl_recurrent *r, int d);
/* Back: dx(B, T, I) = scratch(T, B, I), or += for a second direction. */
void efl_time_major_back(const efl_op_run *run, const efl_recurrent *r, int d);

/* h(B, H) of direction d's step t: to y where y wants it, and from dy: dh += its gradient. */
void efl_recurrent_put(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, const float *h);
void efl_recurrent_take(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, float *dh);

/* The gradients of x and Wx of direction d from those of the gates' sums dg(T, B, GH); uses up scratch. */
void efl_recurrent_input_backward(const efl_op_run *run, const efl_recurrent *r, int d, const float *dg);

#endif
