/* recurrent.h: what lstm.c, gru.c and rnn.c share: shapes, and the conversion between (B, T, ...) outside and (T, B,
 * ...) inside, where each step of a batch is contiguous. The steps themselves are kernels.
 *
 * x (T, I); params Wx (D, I, GH), Wh (D, H, GH), bx (D, GH), bh (D, GH) with G gates; ints hidden H, direction
 * (0 forward, 1 reverse, 2 both: D = 2), output (0: every step, (T, D*H); 1: the last hidden state, (D*H)), then
 * the op's own. Step t of the reverse direction is time T - 1 - t. The initial state is zero, or the same for each
 * sample: further params (D, H), h's and, for an LSTM, the cell's.
 */
#ifndef EFL_RECURRENT_H
#define EFL_RECURRENT_H

#include "ops.h"

typedef struct {
    int64_t time, in, hidden, width; /* T, I, H, GH */
    int directions;                  /* D */
    int last;                        /* y is the last hidden state only */
} efl_recurrent;

/* Checks the node, which has no initial states or `states`; sets y, flops, and the scratch that efl_time_major needs.
 */
int efl_recurrent_infer(efl_op_shapes *s, int64_t gates, int states, efl_error *error);
efl_recurrent efl_recurrent_of(const efl_op_shapes *s);

/* scratch(T, B, I) = x(B, T, I), with the steps in direction d's order. */
void efl_time_major(const efl_op_run *run, const efl_recurrent *r, int d);
/* The reverse: dx(B, T, I) = scratch(T, B, I), or += if d is the second direction. */
void efl_time_major_back(const efl_op_run *run, const efl_recurrent *r, int d);

enum { EFL_STATES = 4 }; /* the params before the initial states */
/* h(B, H) = initial state k of direction d; its gradient += that of h. */
void efl_recurrent_start(const efl_op_run *run, const efl_recurrent *r, int d, int k, float *h);
void efl_recurrent_start_backward(const efl_op_run *run, const efl_recurrent *r, int d, int k, const float *dh);

/* For step t of direction d: put copies h(B, H) into y if y contains this step; take adds its gradient in dy to dh. */
void efl_recurrent_put(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, const float *h);
void efl_recurrent_take(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, float *dh);

/* The gradients of x, and of Wx, of direction d from dg(T, B, GH), those of the gates' sums; both overwrite scratch. */
void efl_recurrent_input_backward(const efl_op_run *run, const efl_recurrent *r, int d, const float *dg);
void efl_recurrent_input_weight(const efl_op_run *run, const efl_recurrent *r, int d, const float *dg);

/* Parts of so many samples each that a tile of a product is full (parts.h). */
int64_t efl_recurrent_parts(const efl_op_run *run);

#endif
