/* shape.c: ops that only rearrange values: flatten, reshape, transpose, pad, slice, concat.
 *
 * Axes are those of a sample. Backward copies in the other direction. Ints:
 *     reshape    the new dims; none for a scalar     transpose  the permutation: axis i of y is axis ints[i] of x
 *     pad        before (ndim), after (ndim); floats: [value]
 *     slice      axis, start, size                   concat     axis
 */
#include "walk.h"

#include <string.h>

static int infer_flatten(efl_op_shapes *s, efl_error *error) {
    (void)error;
    s->y = (efl_shape){.ndim = 1, .dim = {efl_shape_size(&s->x[0])}};
    return EFL_OK;
}

static int infer_reshape(efl_op_shapes *s, efl_error *error) {
    if (s->node->num_ints > EFL_MAX_DIMS) return efl_fail(error, EFL_MODEL, "makes more than 6 axes");
    s->y.ndim = s->node->num_ints;
    for (int i = 0; i < s->y.ndim; i++) s->y.dim[i] = s->node->ints[i];
    if (efl_shape_size(&s->y) != efl_shape_size(&s->x[0]))
        return efl_fail(error, EFL_MODEL, "needs a shape of as many elements as its input has");
    return EFL_OK;
}

static int infer_transpose(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0];
    int seen = 0;
    if (s->node->num_ints != x->ndim) return efl_fail(error, EFL_MODEL, "needs a permutation of its input's axes");
    s->y.ndim = x->ndim;
    for (int i = 0; i < x->ndim; i++) {
        const int64_t axis = s->node->ints[i];
        if (axis < 0 || axis >= x->ndim || seen & 1 << axis)
            return efl_fail(error, EFL_MODEL, "needs a permutation of its input's axes");
        seen |= 1 << axis;
        s->y.dim[i] = x->dim[axis];
    }
    return EFL_OK;
}

static int infer_pad(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0];
    const int64_t *before = s->node->ints, *after = before + x->ndim, most = (int64_t)1 << 30;
    if (s->node->num_ints != 2 * x->ndim) return efl_fail(error, EFL_MODEL, "needs two pads for each axis");
    s->y.ndim = x->ndim;
    for (int i = 0; i < x->ndim; i++) {
        if (before[i] < 0 || before[i] > most || after[i] < 0 || after[i] > most)
            return efl_fail(error, EFL_MODEL, "needs pads of 0 to 2^30");
        s->y.dim[i] = x->dim[i] + before[i] + after[i];
    }
    return EFL_OK;
}

static int infer_slice(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0];
    const int64_t axis = s->node->ints[0], start = s->node->ints[1], size = s->node->ints[2];
    if (axis < 0 || axis >= x->ndim) return efl_fail(error, EFL_MODEL, "needs an axis of its input");
    if (start < 0 || size < 1 || start >= x->dim[axis] || size > x->dim[axis] - start)
        return efl_fail(error, EFL_MODEL, "reaches beyond its input's axis");
    s->y = *x;
    s->y.dim[axis] = size;
    return EFL_OK;
}

static int infer_concat(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = s->x;
    const int64_t axis = s->node->ints[0];
    if (axis < 0 || axis >= x->ndim) return efl_fail(error, EFL_MODEL, "needs an axis of its inputs");
    s->y = *x;
    for (int k = 1; k < s->node->num_inputs; k++) {
        if (x[k].ndim != x->ndim) return efl_fail(error, EFL_MODEL, "needs inputs of as many axes");
        for (int i = 0; i < x->ndim; i++)
            if (i != axis && x[k].dim[i] != x->dim[i])
                return efl_fail(error, EFL_MODEL, "needs inputs that differ along its axis only");
        s->y.dim[axis] += x[k].dim[axis]; /* 8 of at most 2^30 */
    }
    return EFL_OK;
}

/* A walk over `small`, which lies at `start` of each axis within `large`: array `inside` is the large one. Returns
 * where in it the first sample's part starts. */
static int64_t place(efl_walk *walk, int64_t batch, const efl_shape *small, const efl_shape *large,
                     const int64_t *start, int inside) {
    int64_t offset = 0;
    *walk = efl_walk_over(batch, small);
    for (int k = 0; k < 2; k++) efl_walk_array(walk, k == inside ? large : small, 1);
    for (int i = 0, axes = small->ndim; i < axes; i++) offset += start[i] * walk->step[inside][i + 1];
    efl_walk_pack(walk);
    return offset;
}

static void copy_into(int64_t batch, float *large, const efl_shape *large_shape, const float *small,
                      const efl_shape *small_shape, const int64_t *start) {
    efl_walk walk;
    const int64_t offset = place(&walk, batch, small_shape, large_shape, start, 0);
    efl_walk_copy(&walk, large + offset, small);
}

static void copy_out(int64_t batch, float *small, const efl_shape *small_shape, const float *large,
                     const efl_shape *large_shape, const int64_t *start) {
    efl_walk walk;
    const int64_t offset = place(&walk, batch, small_shape, large_shape, start, 1);
    efl_walk_copy(&walk, small, large + offset);
}

/* y's axes of a transpose, and x's steps along them. */
static efl_walk turn(const efl_op_run *run, int y_array) {
    const efl_op_shapes *s = run->shapes;
    efl_walk walk = efl_walk_over(run->batch, &s->y), plain = efl_walk_over(run->batch, &s->x[0]);
    efl_walk_array(&plain, &s->x[0], 1);
    efl_walk_array(&walk, &s->y, 1);
    efl_walk_array(&walk, &s->y, 1);
    for (int i = 0; i < s->y.ndim; i++) walk.step[1 - y_array][i + 1] = plain.step[0][s->node->ints[i] + 1];
    efl_walk_pack(&walk);
    return walk;
}

static void forward_transpose(const efl_op_run *run) {
    efl_walk walk = turn(run, 0);
    efl_walk_copy(&walk, run->y, run->x[0]);
}

static void backward_transpose(const efl_op_run *run) {
    efl_walk walk = turn(run, 1);
    efl_walk_copy(&walk, run->dx[0], run->dy);
}

static void forward_pad(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    const int64_t size = run->batch * efl_shape_size(&s->y);
    const float value = (float)s->node->floats[0];
    for (int64_t i = 0; i < size; i++) run->y[i] = value;
    copy_into(run->batch, run->y, &s->y, run->x[0], &s->x[0], s->node->ints);
}

static void backward_pad(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    copy_out(run->batch, run->dx[0], &s->x[0], run->dy, &s->y, s->node->ints);
}

static void forward_slice(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    int64_t start[EFL_MAX_DIMS] = {0};
    start[s->node->ints[0]] = s->node->ints[1];
    copy_out(run->batch, run->y, &s->y, run->x[0], &s->x[0], start);
}

static void backward_slice(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    int64_t start[EFL_MAX_DIMS] = {0};
    start[s->node->ints[0]] = s->node->ints[1];
    memset(run->dx[0], 0, (size_t)(run->batch * efl_shape_size(&s->x[0])) * sizeof(float));
    copy_into(run->batch, run->dx[0], &s->x[0], run->dy, &s->y, start);
}

static void forward_concat(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    const int64_t axis = s->node->ints[0];
    int64_t start[EFL_MAX_DIMS] = {0};
    for (int k = 0; k < s->node->num_inputs; start[axis] += s->x[k++].dim[axis])
        copy_into(run->batch, run->y, &s->y, run->x[k], &s->x[k], start);
}

static void backward_concat(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    const int64_t axis = s->node->ints[0];
    int64_t start[EFL_MAX_DIMS] = {0};
    for (int k = 0; k < s->node->num_inputs; start[axis] += s->x[k++].dim[axis])
        if (run->dx[k] != NULL) copy_out(run->batch, run->dx[k], &s->x[k], run->dy, &s->y, start);
}

const efl_op efl_op_flatten = {
    .name = "flatten", .flags = EFL_ALIAS, .min_inputs = 1, .max_inputs = 1, .infer = infer_flatten};

const efl_op efl_op_reshape = {
    .name = "reshape", .flags = EFL_ALIAS, .min_inputs = 1, .max_inputs = 1, .num_ints = -1, .infer = infer_reshape};

#define EFL_ARRANGEMENT(arrangement, inputs_from, inputs_to, ints, floats)    \
    const efl_op efl_op_##arrangement = {.name = #arrangement,                \
                                         .flags = EFL_BY_SAMPLES,             \
                                         .min_inputs = inputs_from,           \
                                         .max_inputs = inputs_to,             \
                                         .num_ints = ints,                    \
                                         .num_floats = floats,                \
                                         .infer = infer_##arrangement,        \
                                         .forward = forward_##arrangement,    \
                                         .backward = backward_##arrangement};

EFL_ARRANGEMENT(transpose, 1, 1, -1, 0)
EFL_ARRANGEMENT(pad, 1, 1, -1, 1)
EFL_ARRANGEMENT(slice, 1, 1, 3, 0)
EFL_ARRANGEMENT(concat, 2, 8, 1, 0)
