/* rnn.c: h = f(x Wx + bx + h Wh + bh) over a sequence (Elman 1990); shapes and attributes in recurrent.h, one gate, and
 * a fourth int: 0 tanh, 1 relu.
 *
 * Products as in lstm.c. For each direction forward saves the sums (T, B, H), which backward overwrites with their
 * gradients, and the states (T + 1, B, H), of which the first is the initial one.
 */
#include "pieces.h"
#include "recurrent.h"

#include <string.h>

enum { STATES = 1 };

static int infer(efl_op_shapes *s, efl_error *error) {
    if (efl_recurrent_infer(s, 1, STATES, error) != EFL_OK) return error->code;
    if (s->node->ints[3] != 0 && s->node->ints[3] != 1) return efl_fail(error, EFL_MODEL, "needs activation 0 or 1");
    const efl_recurrent r = efl_recurrent_of(s);
    s->saved.per_sample = r.directions * (2 * r.time + 1) * r.hidden;
    s->scratch.per_sample += r.hidden;
    s->scratch.fixed = (r.hidden + 1) * r.hidden;
    return EFL_OK;
}

/* Where a direction's arrays lie in saved and scratch. */
typedef struct {
    float *sums, *states;
    float *dh, *bias, *turned; /* (B, H); (H), both biases; (H, H), Wh transposed */
    const float *wh;
} parts;

static parts parts_of(const efl_op_run *run, const efl_recurrent *r, int d) {
    const int64_t units = run->batch * r->hidden;
    parts p = {.sums = run->saved + d * (2 * r->time + 1) * units,
               .dh = run->scratch + run->batch * r->time * r->in,
               .wh = run->w[1] + d * r->hidden * r->hidden};
    p.states = p.sums + r->time * units;
    p.bias = p.dh + units;
    p.turned = p.bias + r->hidden;
    return p;
}

static void forward_direction(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, H = r->hidden, units = B * H;
    efl_time_major(run, r, d);
    memcpy(p.bias, run->w[2] + d * H, (size_t)H * sizeof *p.bias);
    efl_kernels->add(p.bias, run->w[3] + d * H, H);
    efl_gemm(run, p.sums, run->scratch, r->in, 1, run->w[0] + d * r->in * H, p.bias, r->time * B, H, r->in, 0);
    efl_recurrent_start(run, r, d, 0, p.states);
    for (int64_t t = 0; t < r->time && !efl_stopped(run); t++) {
        float *sums = p.sums + t * units, *h = p.states + t * units;
        efl_gemm(run, sums, h, H, 1, p.wh, NULL, B, H, H, 1);
        (run->shapes->node->ints[3] ? efl_kernels->relu : efl_kernels->tanh)(h + units, sums, units);
        efl_recurrent_put(run, r, d, t, h + units);
    }
}

static void forward(const efl_op_run *run) {
    const efl_recurrent r = efl_recurrent_of(run->shapes);
    for (int d = 0; d < r.directions; d++) forward_direction(run, &r, d);
}

static void backward_direction(const efl_op_run *run, const efl_recurrent *r, int d) {
    const parts p = parts_of(run, r, d);
    const int64_t B = run->batch, H = r->hidden, units = B * H, rows = r->time * B;
    efl_kernels->transpose(p.turned, p.wh, 1, H, H);
    memset(p.dh, 0, (size_t)units * sizeof *p.dh);
    for (int64_t t = r->time - 1; t >= 0 && !efl_stopped(run); t--) {
        float *sums = p.sums + t * units;
        const float *h = p.states + (t + 1) * units;
        efl_recurrent_take(run, r, d, t, p.dh);
        (run->shapes->node->ints[3] ? efl_kernels->relu_backward : efl_kernels->tanh_backward)(sums, p.dh, h, units);
        if (t > 0 || run->dw[EFL_STATES] != NULL) efl_gemm(run, p.dh, sums, H, 1, p.turned, NULL, B, H, H, 0);
    }
    efl_recurrent_start_backward(run, r, d, 0, p.dh);
    if (run->dw[1] != NULL) efl_gemm(run, run->dw[1] + d * H * H, p.states, 1, H, p.sums, NULL, H, H, rows, 1);
    for (int k = 2; k < 4; k++)
        if (run->dw[k] != NULL) efl_kernels->add_rows(run->dw[k] + d * H, p.sums, rows, H);
    efl_recurrent_input_weight(run, r, d, p.sums);
    efl_recurrent_input_backward(run, r, d, p.sums);
}

static void backward(const efl_op_run *run) {
    const efl_recurrent r = efl_recurrent_of(run->shapes);
    for (int d = 0; d < r.directions; d++) backward_direction(run, &r, d);
}

const efl_op efl_op_rnn = {
    .name = "rnn",
    .flags = EFL_READS_X,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = EFL_STATES,
    .max_params = EFL_STATES + STATES,
    .num_ints = 4,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
