/* walk.h: a walk over several arrays at once, which have the same axes and different steps.
 *
 * Broadcasting is a step of 0, a transpose a change of order. Packing drops axes of one and merges those that lie
 * one behind the other in every array, so that kernels get the longest rows there are: two axes, (m, n). */
#ifndef EFL_WALK_H
#define EFL_WALK_H

#include "ops.h"

enum { WALK_AXES = EFL_MAX_DIMS + 1, WALK_ARRAYS = 3 };

typedef struct {
    int ndim, arrays;
    int64_t dim[WALK_AXES];
    int64_t step[WALK_ARRAYS][WALK_AXES];
    int64_t index[WALK_AXES]; /* of the outer axes, all but the last two */
    int64_t at[WALK_ARRAYS];  /* where in each array this (m, n) starts */
    int64_t m, n;
} efl_walk;

/* Over (batch, shape), without arrays yet. */
efl_walk efl_walk_over(int64_t batch, const efl_shape *shape);
/* One more array: dense, of this shape for each sample, or (per_sample 0) one for all; broadcast as NumPy does. */
void efl_walk_array(efl_walk *walk, const efl_shape *shape, int per_sample);
/* After the arrays; then `do { ... walk.at[k] ... } while (efl_walk_next(&walk));` */
void efl_walk_pack(efl_walk *walk);
int efl_walk_next(efl_walk *walk);
/* Of a packed walk over two arrays, y the first: y[...] = x[...], in whatever order is fast */
void efl_walk_copy(efl_walk *walk, float *y, const float *x);
/* Of a packed walk over two arrays of which the second is dense: y[...] += x[...] */
void efl_walk_sum(efl_walk *walk, float *y, const float *x);

/* What decides which elements are kept: `by`, of this shape for each sample or (per_sample 0) for all, which broadcasts
 * to the op's output; row(n): to = from where by, in steps of `step`, says so, and `fill` elsewhere. */
typedef struct {
    const float *by;
    const efl_shape *shape;
    int per_sample;
    void (*row)(float *to, const float *from, const float *by, int64_t step, float fill, int64_t n);
} efl_keeping;

/* to = from where they are kept, and fill elsewhere; both as the op's output. to may be from. */
void efl_walk_keep(const efl_op_run *run, float *to, const float *from, const efl_keeping *keeping, float fill);

#endif
