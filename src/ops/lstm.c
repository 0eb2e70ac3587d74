/* lstm.c: LSTM (Hochreiter, Schmidhuber 1997) over a sequence; shapes and attributes in recurrent.h, gates i o f c.
 *
 * One product x Wx covers the gates of all steps; each step then adds its own h Wh. In backward, too, each weight
 * gradient is one product over all steps. For each direction forward saves the activated gates (T, B, 4H) and the cells
 * (T + 1, B, H), of which the first is the initial one. Backward overwrites gates with their gradients, and cells with
 * the hidden states.
 *
 * Parts are samples, each with all its steps, and everything here lies in memory part by part. The gradients of params
 * are summed over the parts, in their order.
 */
#include "parts.h"
#include "pieces.h"
#include "recurrent.h"

#include <string.h>

enum {
    GATES = 4,
    STATES = 2, /* h, and the cell */
    WIDE = 64, /* from this H on, Wh is read in panels, because its rows are long */
};

static int infer(efl_op_shapes *s, efl_error *error) {
    if (efl_recurrent_infer(s, GATES, STATES, error) != EFL_OK) return error->code;
    const efl_recurrent r = efl_recurrent_of(s);
    s->saved.per_sample = r.directions * (r.time * r.width + (r.time + 1) * r.hidden);
    s->scratch.per_sample += 2 * r.hidden + r.width;
    s->scratch.fixed = r.hidden * r.width;
    return EFL_OK;
}

/* Where a direction's arrays lie in saved and scratch. */
typedef struct {
    float *gates, *cells;
    float *state, *dcell; /* (B, H) */
    float *sums;          /* (B, 4H) */
    float *bias;          /* (4H) in backward, which needs no sums: the gradient of the part's biases */
} parts;

static parts parts_of(const efl_op_run *run, const efl_recurrent *r, int d) {
    const int64_t units = run->batch * r->hidden, gates = r->time * run->batch * r->width;
    parts p = {.gates = run->saved + d * (gates + (r->time + 1) * units)};
    p.cells = p.gates + gates;
    p.state = run->scratch + run->batch * r->time * r->in;
    p.dcell = p.state + units;
    p.sums = p.dcell + units;
    p.bias = p.sums;
    return p;
}

/* Wh as forward and backward read it, for all parts: in panels if H >= WIDE; transposed, and then in panels. */
static float *turned(const efl_op_run *run) {
    return run->scratch + run->batch * run->shapes->scratch.per_sample;
}

/* What the parts of one direction share. */
typedef struct {
    efl_recurrent r;
    int d;
    const float *wh; /* turned */
} direction;

/* sums = state Wh + bh */
static void state_sums(const efl_op_run *run, const parts *p, const direction *dir) {
    const int64_t H = dir->r.hidden, batch = run->batch, width = dir->r.width;
    const float *bh = run->w[3] + dir->d * width;
    if (H < WIDE) {
        efl_gemm(run, p->sums, p->state, H, 1, run->w[1] + dir->d * H * width, bh, batch, width, H, 0);
        return;
    }
    efl_gemm_panels(run, p->sums, p->state, dir->wh, bh, batch, width, H);
}

static void forward_part(const efl_op_run *whole, efl_share share, const void *context) {
    const direction *dir = context;
    const efl_recurrent *r = &dir->r;
    const efl_op_run part = efl_samples_of(whole, share), *run = &part;
    const parts p = parts_of(run, r, dir->d);
    const int64_t B = run->batch, units = B * r->hidden, step = B * r->width;
    const float *wx = run->w[0] + dir->d * r->in * r->width, *bx = run->w[2] + dir->d * r->width;
    efl_recurrent_start(run, r, dir->d, 0, p.state);
    efl_recurrent_start(run, r, dir->d, 1, p.cells);
    efl_time_major(run, r, dir->d);
    efl_gemm(run, p.gates, run->scratch, r->in, 1, wx, bx, r->time * B, r->width, r->in, 0);
    for (int64_t t = 0; t < r->time && !efl_stopped(run); t++) {
        float *gates = p.gates + t * step, *cells = p.cells + t * units;
        state_sums(run, &p, dir);
        efl_kernels->lstm_forward(gates, p.sums, cells + units, cells, p.state, B, r->hidden);
        efl_recurrent_put(run, r, dir->d, t, p.state);
    }
}

static void forward(const efl_op_run *run) {
    direction dir = {.r = efl_recurrent_of(run->shapes), .wh = turned(run)};
    for (; dir.d < dir.r.directions; dir.d++) {
        const float *wh = run->w[1] + dir.d * dir.r.hidden * dir.r.width;
        if (dir.r.hidden >= WIDE) efl_panels(turned(run), wh, dir.r.hidden, dir.r.width);
        efl_parallel(run, efl_recurrent_parts(run), forward_part, &dir);
    }
}

/* Else the first h is zero, and its product is left out. */
static int starts(const efl_op_run *run) {
    return run->w[EFL_STATES] != NULL;
}

static void backward_part(const efl_op_run *whole, efl_share share, const void *context) {
    const direction *dir = context;
    const efl_recurrent *r = &dir->r;
    const efl_op_run part = efl_samples_of(whole, share), *run = &part;
    const parts p = parts_of(run, r, dir->d);
    const int64_t B = run->batch, units = B * r->hidden, step = B * r->width;
    memset(p.state, 0, 2 * (size_t)units * sizeof *p.state); /* and dcell */
    memset(p.bias, 0, (size_t)r->width * sizeof *p.bias);
    for (int64_t t = r->time - 1; t >= 0 && !efl_stopped(run); t--) {
        float *gates = p.gates + t * step, *cells = p.cells + t * units;
        efl_recurrent_take(run, r, dir->d, t, p.state);
        efl_kernels->lstm_backward(gates, cells + units, cells, p.state, p.dcell, B, r->hidden);
        efl_kernels->add_rows(p.bias, gates, B, r->width); /* while they are in the cache */
        if (t > 0 || starts(run)) efl_gemm_panels(run, p.state, gates, dir->wh, NULL, B, r->hidden, r->width);
    }
    efl_recurrent_input_backward(run, r, dir->d, p.gates);
}

/* The gradients of params, which a part's samples add to. */
static void add_gradients(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, first = starts(run) ? 0 : 1, rows = (r->time - first) * B;
    efl_recurrent_start_backward(run, r, d, 0, p.state);
    efl_recurrent_start_backward(run, r, d, 1, p.dcell);
    efl_recurrent_start(run, r, d, 0, p.cells);
    if (run->dw[1] != NULL && rows > 0)
        efl_gemm(run, run->dw[1] + d * r->hidden * r->width, p.cells + first * B * r->hidden, 1, r->hidden,
                 p.gates + first * B * r->width, NULL, r->hidden, r->width, rows, 1);
    for (int k = 2; k < 4; k++)
        if (run->dw[k] != NULL) efl_kernels->add(run->dw[k] + d * r->width, p.bias, r->width);
    efl_recurrent_input_weight(run, r, d, p.gates);
}

static void backward(const efl_op_run *run) {
    direction dir = {.r = efl_recurrent_of(run->shapes), .wh = turned(run)};
    const int64_t count = efl_recurrent_parts(run);
    for (; dir.d < dir.r.directions; dir.d++) {
        efl_panels_turned(turned(run), run->w[1] + dir.d * dir.r.hidden * dir.r.width, dir.r.width, dir.r.hidden);
        efl_parallel(run, count, backward_part, &dir);
        for (int64_t i = 0; i < count && !efl_stopped(run); i++) {
            const efl_op_run part = efl_samples_of(run, (efl_share){i, count, 0});
            add_gradients(&part, &dir.r, dir.d);
        }
    }
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
