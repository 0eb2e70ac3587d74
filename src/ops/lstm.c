/* lstm.c: LSTM (Hochreiter, Schmidhuber 1997) over a sequence; shapes and attributes in recurrent.h, gates i o f c.
 *
 * One product x Wx covers the gates of all steps; each step then adds its own h Wh. In backward, too, each weight
 * gradient is one product over all steps. For each direction forward saves the activated gates (T, B, 4H) and the cells
 * (T + 1, B, H), of which the first is the initial one. Backward overwrites gates with their gradients, and cells with
 * the hidden states.
 */
#include "pieces.h"
#include "recurrent.h"

#include <string.h>

enum {
    GATES = 4,
    STATES = 2, /* h, and the cell */
    WIDE = 64, /* from this H on, it is faster to read Wh gate by gate, because its rows are long */
};

static int infer(efl_op_shapes *s, efl_error *error) {
    if (efl_recurrent_infer(s, GATES, STATES, error) != EFL_OK) return error->code;
    const efl_recurrent r = efl_recurrent_of(s);
    s->saved.per_sample = r.directions * (r.time * r.width + (r.time + 1) * r.hidden);
    s->scratch.per_sample += 2 * r.hidden + r.width;
    s->scratch.fixed = (r.hidden + 1) * r.width;
    return EFL_OK;
}

/* Where a direction's arrays lie in saved and scratch. */
typedef struct {
    float *gates, *cells;
    float *state, *dcell; /* (B, H) */
    float *sums;          /* (B, 4H); (4, B, H) if H >= WIDE */
    float *bias, *wh;     /* (4H); Wh, as (4, H, H) in forward and transposed, (4H, H), in backward */
} parts;

static parts parts_of(const efl_op_run *run, const efl_recurrent *r, int d) {
    const int64_t units = run->batch * r->hidden, gates = r->time * run->batch * r->width;
    parts p = {.gates = run->saved + d * (gates + (r->time + 1) * units)};
    p.cells = p.gates + gates;
    p.state = run->scratch + run->batch * r->time * r->in;
    p.dcell = p.state + units;
    p.sums = p.dcell + units;
    p.bias = p.sums + run->batch * r->width;
    p.wh = p.bias + r->width;
    return p;
}

static void split_gates(const parts *p, const float *wh, const efl_recurrent *r) {
    for (int64_t gate = 0; gate < GATES; gate++)
        for (int64_t row = 0; row < r->hidden; row++)
            memcpy(p->wh + (gate * r->hidden + row) * r->hidden, wh + row * r->width + gate * r->hidden,
                   (size_t)r->hidden * sizeof *wh);
}

/* sums = state Wh + bh */
static void state_sums(const efl_op_run *run, const parts *p, const float *wh, const float *bh,
                       const efl_recurrent *r) {
    const int64_t H = r->hidden, batch = run->batch;
    if (H < WIDE) {
        efl_gemm(run, p->sums, p->state, H, 1, wh, bh, batch, r->width, H, 0);
        return;
    }
    for (int64_t gate = 0; gate < GATES; gate++)
        efl_gemm(run, p->sums + gate * batch * H, p->state, H, 1, p->wh + gate * H * H, bh + gate * H, batch, H, H, 0);
}

static void forward_direction(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, units = B * r->hidden, step = B * r->width;
    const float *wx = run->w[0] + d * r->in * r->width, *wh = run->w[1] + d * r->hidden * r->width;
    const float *bx = run->w[2] + d * r->width, *bh = run->w[3] + d * r->width;
    efl_recurrent_start(run, r, d, 0, p.state);
    efl_recurrent_start(run, r, d, 1, p.cells);
    if (r->hidden >= WIDE) split_gates(&p, wh, r);
    efl_time_major(run, r, d);
    efl_gemm(run, p.gates, run->scratch, r->in, 1, wx, bx, r->time * B, r->width, r->in, 0);
    for (int64_t t = 0; t < r->time && !efl_stopped(run); t++) {
        float *gates = p.gates + t * step, *cells = p.cells + t * units;
        state_sums(run, &p, wh, bh, r);
        efl_kernels->lstm_forward(gates, p.sums, r->hidden >= WIDE, cells + units, cells, p.state, B, r->hidden);
        efl_recurrent_put(run, r, d, t, p.state);
    }
}

static void forward(const efl_op_run *run) {
    const efl_recurrent r = efl_recurrent_of(run->shapes);
    for (int d = 0; d < r.directions; d++) forward_direction(run, &r, d);
}

static void backward_direction(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, units = B * r->hidden, step = B * r->width;
    const int starts = run->w[EFL_STATES] != NULL; /* else the first h is zero, and its product is left out */
    const int64_t first = starts ? 0 : 1, rows = (r->time - first) * B;
    efl_kernels->transpose(p.wh, run->w[1] + d * r->hidden * r->width, 1, r->hidden, r->width);
    memset(p.state, 0, 2 * (size_t)units * sizeof *p.state); /* and dcell */
    memset(p.bias, 0, (size_t)r->width * sizeof *p.bias);
    for (int64_t t = r->time - 1; t >= 0 && !efl_stopped(run); t--) {
        float *gates = p.gates + t * step, *cells = p.cells + t * units;
        efl_recurrent_take(run, r, d, t, p.state);
        efl_kernels->lstm_backward(gates, cells + units, cells, p.state, p.dcell, B, r->hidden);
        efl_kernels->add_rows(p.bias, gates, B, r->width); /* while they are in the cache */
        if (t > 0 || starts) efl_gemm(run, p.state, gates, r->width, 1, p.wh, NULL, B, r->hidden, r->width, 0);
    }
    efl_recurrent_start_backward(run, r, d, 0, p.state);
    efl_recurrent_start_backward(run, r, d, 1, p.dcell);
    efl_recurrent_start(run, r, d, 0, p.cells);
    if (run->dw[1] != NULL && rows > 0)
        efl_gemm(run, run->dw[1] + d * r->hidden * r->width, p.cells + first * units, 1, r->hidden,
                 p.gates + first * step, NULL, r->hidden, r->width, rows, 1);
    for (int k = 2; k < 4; k++)
        if (run->dw[k] != NULL) efl_kernels->add(run->dw[k] + d * r->width, p.bias, r->width);
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
    .max_params = EFL_STATES + STATES,
    .num_ints = 3,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
