/* recurrent.c: see recurrent.h. */
#include "parts.h"
#include "pieces.h"
#include "recurrent.h"

#include <string.h>

static int is_shape(const efl_shape *shape, int64_t a, int64_t b, int64_t c) {
    if (c == 0) return shape->ndim == 2 && shape->dim[0] == a && shape->dim[1] == b;
    return shape->ndim == 3 && shape->dim[0] == a && shape->dim[1] == b && shape->dim[2] == c;
}

/* No product here overflows: every shape of the plan was found to have at most 2^30 elements, so with Wh(D,H,GH)
 * H is below 2^15, and T times the elements of Wh below 2^60. */
int efl_recurrent_infer(efl_op_shapes *s, int64_t gates, int states, efl_error *error) {
    const efl_shape *x = &s->x[0];
    const int64_t hidden = s->node->ints[0], direction = s->node->ints[1], output = s->node->ints[2];
    if (x->ndim != 2) return efl_fail(error, EFL_MODEL, "needs a sequence (T, I)");
    if (hidden < 1 || hidden > 1 << 15 || direction < 0 || direction > 2 || output < 0 || output > 1)
        return efl_fail(error, EFL_MODEL, "needs hidden 1 to 2^15, direction 0 to 2, output 0 or 1");
    const int64_t directions = direction == 2 ? 2 : 1, width = gates * hidden;
    if (!is_shape(&s->w[0], directions, x->dim[1], width) || !is_shape(&s->w[1], directions, hidden, width) ||
        !is_shape(&s->w[2], directions, width, 0) || !is_shape(&s->w[3], directions, width, 0))
        return efl_fail(error, EFL_MODEL, "needs Wx (D, I, %dH), Wh (D, H, %dH), biases (D, %dH)", (int)gates,
                        (int)gates, (int)gates);
    if (s->node->num_params != EFL_STATES && s->node->num_params != EFL_STATES + states)
        return efl_fail(error, EFL_MODEL, "needs all of its initial states, or none");
    for (int k = EFL_STATES; k < s->node->num_params; k++)
        if (!is_shape(&s->w[k], directions, hidden, 0))
            return efl_fail(error, EFL_MODEL, "needs initial states (D, H)");
    if (output)
        s->y = (efl_shape){.ndim = 1, .dim = {directions * hidden}};
    else
        s->y = (efl_shape){.ndim = 2, .dim = {x->dim[0], directions * hidden}};
    s->flops = 2 * x->dim[0] * directions * (x->dim[1] + hidden) * width;
    s->scratch.per_sample = x->dim[0] * x->dim[1];
    return EFL_OK;
}

efl_recurrent efl_recurrent_of(const efl_op_shapes *s) {
    return (efl_recurrent){.time = s->x[0].dim[0],
                           .in = s->x[0].dim[1],
                           .hidden = s->node->ints[0],
                           .width = s->w[1].dim[2],
                           .directions = (int)s->w[1].dim[0],
                           .last = s->node->ints[2] != 0};
}

void efl_recurrent_start(const efl_op_run *run, const efl_recurrent *r, int d, int k, float *h) {
    const float *from = run->w[EFL_STATES + k];
    const size_t size = (size_t)r->hidden * sizeof *h;
    if (from == NULL) memset(h, 0, (size_t)run->batch * size);
    for (int64_t b = 0; from != NULL && b < run->batch; b++) memcpy(h + b * r->hidden, from + d * r->hidden, size);
}

void efl_recurrent_start_backward(const efl_op_run *run, const efl_recurrent *r, int d, int k, const float *dh) {
    float *to = run->dw[EFL_STATES + k];
    if (to != NULL) efl_kernels->add_rows(to + d * r->hidden, dh, run->batch, r->hidden);
}

/* The position in (B, T) of step t of direction d. */
static int64_t place(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t) {
    const int reversed = run->shapes->node->ints[1] == 1 || d == 1;
    return reversed ? r->time - 1 - t : t;
}

void efl_time_major(const efl_op_run *run, const efl_recurrent *r, int d) {
    float *to = run->scratch;
    for (int64_t t = 0; t < r->time; t++)
        for (int64_t b = 0; b < run->batch; b++, to += r->in)
            memcpy(to, run->x[0] + (b * r->time + place(run, r, d, t)) * r->in, (size_t)r->in * sizeof *to);
}

void efl_time_major_back(const efl_op_run *run, const efl_recurrent *r, int d) {
    const float *from = run->scratch;
    for (int64_t t = 0; t < r->time; t++) {
        for (int64_t b = 0; b < run->batch; b++, from += r->in) {
            float *to = run->dx[0] + (b * r->time + place(run, r, d, t)) * r->in;
            if (d == 0)
                memcpy(to, from, (size_t)r->in * sizeof *to);
            else
                efl_kernels->add(to, from, r->in);
        }
    }
}

/* The position in y or dy of sample b's h at step t of direction d; -1 if they do not have it. */
static int64_t output_of(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, int64_t b) {
    const int64_t row = r->directions * r->hidden;
    if (r->last) return t == r->time - 1 ? b * row + d * r->hidden : -1;
    return (b * r->time + place(run, r, d, t)) * row + d * r->hidden;
}

void efl_recurrent_put(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, const float *h) {
    for (int64_t b = 0; b < run->batch; b++) {
        const int64_t at = output_of(run, r, d, t, b);
        if (at >= 0) memcpy(run->y + at, h + b * r->hidden, (size_t)r->hidden * sizeof *h);
    }
}

void efl_recurrent_take(const efl_op_run *run, const efl_recurrent *r, int d, int64_t t, float *dh) {
    for (int64_t b = 0; b < run->batch; b++) {
        const int64_t at = output_of(run, r, d, t, b);
        if (at >= 0) efl_kernels->add(dh + b * r->hidden, run->dy + at, r->hidden);
    }
}

void efl_recurrent_input_backward(const efl_op_run *run, const efl_recurrent *r, int d, const float *dg) {
    if (run->dx[0] == NULL) return;
    efl_gemm_nt(run, run->scratch, dg, run->w[0] + d * r->in * r->width, r->time * run->batch, r->in, r->width);
    efl_time_major_back(run, r, d);
}

void efl_recurrent_input_weight(const efl_op_run *run, const efl_recurrent *r, int d, const float *dg) {
    const int64_t rows = r->time * run->batch;
    if (run->dw[0] == NULL) return;
    efl_time_major(run, r, d);
    efl_gemm(run, run->dw[0] + d * r->in * r->width, run->scratch, 1, r->in, dg, NULL, r->in, r->width, rows, 1);
}

/* Each part reads all of Wh in each step. Where that comes from beyond the second cache, one part reads it once for all
 * samples, and threads share its columns. */
int64_t efl_recurrent_parts(const efl_op_run *run) {
    enum { ROWS = 5 /* two tiles of five are as fast as one product of ten rows */, LARGE = 1 << 19 /* floats */ };
    const efl_shape *wh = &run->shapes->w[1];
    if (wh->dim[1] * wh->dim[2] > LARGE) return 1;
    return efl_parts(run, efl_operations(run), run->batch / ROWS);
}
