/* mask.c: y = x where a mask keeps it, and a number elsewhere: an attention's mask, a triangle of a matrix.
 *
 * Floats: [fill]. With a param w, whose shape broadcasts to x's: an element is kept where w is not 0; no ints. Without
 * a param, ints [upper, k]: of each matrix along the last two axes, element (i, j) is kept where j - i >= k if upper
 * is 1, and where j - i <= k if it is 0. What is not kept has no gradient.
 *
 * select: y = x[1] where x[0] > 0, and x[2] elsewhere; three inputs of one shape. x[0] has no gradient.
 */
#include "walk.h"

#include "pieces.h"

#include <math.h>
#include <string.h>

enum { FARTHEST = 1 << 24 }; /* diagonal */

static int broadcasts(const efl_shape *w, const efl_shape *x) {
    if (w->ndim > x->ndim) return 0;
    for (int i = 1; i <= w->ndim; i++)
        if (w->dim[w->ndim - i] != 1 && w->dim[w->ndim - i] != x->dim[x->ndim - i]) return 0;
    return 1;
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_node *node = s->node;
    if (!isfinite((float)node->floats[0])) return efl_fail(error, EFL_MODEL, "needs a finite number to fill in");
    if (node->num_params == 1) {
        if (node->num_ints != 0) return efl_fail(error, EFL_MODEL, "needs a param or a triangle, not both");
        if (!broadcasts(&s->w[0], &s->x[0]))
            return efl_fail(error, EFL_MODEL, "needs a param that broadcasts to its input's shape");
    } else {
        if (node->num_ints != 2 || s->x[0].ndim < 2)
            return efl_fail(error, EFL_MODEL, "needs a param, or a triangle of an input with two axes");
        if ((node->ints[0] != 0 && node->ints[0] != 1) || node->ints[1] < -FARTHEST || node->ints[1] > FARTHEST)
            return efl_fail(error, EFL_MODEL, "needs upper 0 or 1, and a diagonal within 2^24");
    }
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    return EFL_OK;
}

static int64_t within(int64_t at, int64_t most) {
    return at < 0 ? 0 : at > most ? most : at;
}

static void fill_in(float *to, int64_t n, float fill) {
    for (int64_t j = 0; j < n; j++) to[j] = fill;
}

/* Of row i the elements from `first` to before `end` are kept. */
static void triangle(const efl_op_run *run, float *to, const float *from, float fill) {
    const efl_shape *x = &run->shapes->x[0];
    const int64_t *ints = run->shapes->node->ints, rows = x->dim[x->ndim - 2], n = x->dim[x->ndim - 1];
    const int64_t total = run->batch * efl_shape_size(x) / n;
    for (int64_t r = 0; r < total && !efl_stopped(run); r++, to += n, from += n) {
        const int64_t i = r % rows, first = ints[0] ? within(i + ints[1], n) : 0;
        const int64_t end = ints[0] ? n : within(i + ints[1] + 1, n);
        fill_in(to, first, fill);
        if (to != from && first < end) memcpy(to + first, from + first, (size_t)(end - first) * sizeof *to);
        fill_in(to + end, n - end, fill);
    }
}

static void keep_non_zero(float *to, const float *from, const float *by, int64_t step, float fill, int64_t n) {
    for (int64_t j = 0; j < n; j++) to[j] = by[j * step] != 0 ? from[j] : fill;
}

static void apply(const efl_op_run *run, float *to, const float *from, float fill) {
    const efl_keeping keeping = {run->w[0], &run->shapes->w[0], 0, keep_non_zero};
    if (run->shapes->node->num_params == 1)
        efl_walk_keep(run, to, from, &keeping, fill);
    else
        triangle(run, to, from, fill);
}

static void forward(const efl_op_run *run) {
    apply(run, run->y, run->x[0], (float)run->shapes->node->floats[0]);
}

static void backward(const efl_op_run *run) {
    if (run->dx[0] != NULL) apply(run, run->dx[0], run->dy, 0);
}

const efl_op efl_op_mask = {.name = "mask",
                            .flags = EFL_IN_PLACE | EFL_BY_SAMPLES,
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .max_params = 1,
                            .num_ints = -1,
                            .num_floats = 1,
                            .infer = infer,
                            .forward = forward,
                            .backward = backward};

static int infer_select(efl_op_shapes *s, efl_error *error) {
    for (int k = 1; k < 3; k++) {
        if (s->x[k].ndim != s->x[0].ndim) return efl_fail(error, EFL_MODEL, "needs inputs of one shape");
        for (int i = 0; i < s->x[0].ndim; i++)
            if (s->x[k].dim[i] != s->x[0].dim[i]) return efl_fail(error, EFL_MODEL, "needs inputs of one shape");
    }
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    return EFL_OK;
}

static void forward_select(const efl_op_run *run) {
    const int64_t size = run->batch * efl_shape_size(&run->shapes->y);
    for (int64_t i = 0; i < size; i++) run->y[i] = run->x[0][i] > 0 ? run->x[1][i] : run->x[2][i];
}

static void backward_select(const efl_op_run *run) {
    const int64_t size = run->batch * efl_shape_size(&run->shapes->y);
    if (run->dx[0] != NULL) fill_in(run->dx[0], size, 0);
    for (int k = 1; k < 3; k++) {
        float *dx = run->dx[k];
        for (int64_t i = 0; dx != NULL && i < size; i++) dx[i] = (run->x[0][i] > 0) == (k == 1) ? run->dy[i] : 0;
    }
}

const efl_op efl_op_select = {.name = "select",
                              .flags = EFL_READS_X | EFL_BY_SAMPLES,
                              .min_inputs = 3,
                              .max_inputs = 3,
                              .infer = infer_select,
                              .forward = forward_select,
                              .backward = backward_select};
