/* lstm.c: LSTM (Hochreiter, Schmidhuber 1997) over a sequence; shapes and attributes in recurrent.h, gates i o f c.
 *
 * One product makes the input's part of all gates of all steps, a small one per step adds the state's part. Backward
 * mirrors that, and each weight gradient is one product over all steps. What forward saves for each direction:
 * gates (T, B, 4H), activated; cells (T + 1, B, H), the first zero. Backward turns them into the gates' gradients
 * and the hidden states.
 */
#include "recurrent.h"

#include <string.h>

enum { GATES = 4 };

static int infer(efl_op_shapes *s, efl_error *error) {
    if (efl_recurrent_infer(s, GATES, error) != EFL_OK) return error->code;
    const efl_recurrent r = efl_recurrent_of(s);
    s->saved.per_sample = r.directions * (r.time * r.width + (r.time + 1) * r.hidden);
    s->scratch.per_sample += 2 * r.hidden;
    s->scratch.fixed = (r.hidden + 1) * r.width;
    return EFL_OK;
}

/* The parts of saved and scratch. */
typedef struct {
    float *gates, *cells;
    float *state, *dcell; /* (B, H) */
    float *bias, *turned; /* (4H) and (4H, H) */
} parts;

static parts parts_of(const efl_op_run *run, const efl_recurrent *r, int d) {
    const int64_t units = run->batch * r->hidden, gates = r->time * run->batch * r->width;
    parts p = {.gates = run->saved + d * (gates + (r->time + 1) * units)};
    p.cells = p.gates + gates;
    p.state = run->scratch + run->batch * r->time * r->in;
    p.dcell = p.state + units;
    p.bias = p.dcell + units;
    p.turned = p.bias + r->width;
    return p;
}

static void forward_direction(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, units = B * r->hidden, step = B * r->width;
    const float *wx = run->w[0] + d * r->in * r->width, *wh = run->w[1] + d * r->hidden * r->width;
    memcpy(p.bias, run->w[2] + d * r->width, (size_t)r->width * sizeof *p.bias);
    efl_kernels->add(p.bias, run->w[3] + d * r->width, r->width);
    memset(p.cells, 0, (size_t)units * sizeof *p.cells);
    efl_time_major(run, r, d);
    efl_kernels->gemm(p.gates, run->scratch, r->in, 1, wx, p.bias, r->time * B, r->width, r->in, 0);
    for (int64_t t = 0; t < r->time; t++) {
        float *gates = p.gates + t * step, *cells = p.cells + t * units;
        if (t > 0) efl_kernels->gemm(gates, p.state, r->hidden, 1, wh, NULL, B, r->width, r->hidden, 1);
        efl_kernels->lstm_forward(gates, cells + units, cells, p.state, B, r->hidden);
        efl_recurrent_put(run, r, d, t, p.state);
    }
}

static void forward(const efl_op_run *run) {
    const efl_recurrent r = efl_recurrent_of(run->shapes);
    for (int d = 0; d < r.directions; d++) forward_direction(run, &r, d);
}

static void backward_direction(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, units = B * r->hidden, step = B * r->width, later = (r->time - 1) * B;
    efl_kernels->turn(p.turned, run->w[1] + d * r->hidden * r->width, r->hidden, r->width);
    memset(p.state, 0, 2 * (size_t)units * sizeof *p.state); /* and dcell */
    for (int64_t t = r->time - 1; t >= 0; t--) {
        float *gates = p.gates + t * step, *cells = p.cells + t * units;
        efl_recurrent_take(run, r, d, t, p.state);
        efl_kernels->lstm_backward(gates, cells + units, cells, p.state, p.dcell, B, r->hidden);
        if (t > 0) efl_kernels->gemm(p.state, gates, r->width, 1, p.turned, NULL, B, r->hidden, r->width, 0);
    }
    if (run->dw[1] != NULL && later > 0)
        efl_kernels->gemm(run->dw[1] + d * r->hidden * r->width, p.cells + units, 1, r->hidden, p.gates + step, NULL,
                          r->hidden, r->width, later, 1);
    if (run->dw[3] != NULL) efl_kernels->add_rows(run->dw[3] + d * r->width, p.gates, r->time * B, r->width);
    efl_recurrent_input_backward(run, r, d, p.gates);
}

static void backward(const efl_op_run *run) {
    const efl_recurrent r = efl_recurrent_of(run->shapes);
    for (int d = 0; d < r.directions; d++) backward_direction(run, &r, d);
}

const efl_op efl_op_lstm = {
    .name = "lstm",
    .flags = EFL_READS_X,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 4,
    .max_params = 4,
    .num_ints = 3,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
