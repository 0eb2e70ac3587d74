/* gru.c: GRU (Cho et al. 2014) over a sequence; shapes and attributes in recurrent.h, gates z r h, and a fourth int,
 * linear_before_reset. 1: h~ = tanh(x's part + r (h Wh + bh)), as PyTorch and cuDNN. 0: tanh(x's part + (r h) Wh + bh).
 *
 * Products as in lstm.c. What forward saves for each direction: gates (T, B, 3H), activated; kept (T, B, H), the
 * state's part of h~, or r h; states (T + 1, B, H), the first the initial one. In backward, gates become the gradients
 * of the sums of x's part, kept that of the state's part of h~ (with linear_before_reset).
 *
 * Parts are samples, as in lstm.c.
 */
#include "parts.h"
#include "pieces.h"
#include "recurrent.h"

#include <string.h>

enum { GATES = 3, STATES = 1 };

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int infer(efl_op_shapes *s, efl_error *error) {
    if (efl_recurrent_infer(s, GATES, STATES, error) != EFL_OK) return error->code;
    const int64_t reset_after = s->node->ints[3];
    if (reset_after != 0 && reset_after != 1) return efl_fail(error, EFL_MODEL, "needs linear_before_reset 0 or 1");
    const efl_recurrent r = efl_recurrent_of(s);
    s->saved.per_sample = r.directions * (r.time * (r.width + r.hidden) + (r.time + 1) * r.hidden);
    s->scratch.per_sample = r.time * larger(r.in, reset_after ? 0 : r.hidden) + r.width + r.hidden;
    s->scratch.fixed = r.hidden * r.width + (reset_after ? 0 : r.hidden * r.hidden);
    return EFL_OK;
}

/* The parts of saved and scratch. */
typedef struct {
    float *gates, *kept, *states;
    float *sums, *dh; /* (B, 3H), (B, H) */
    const float *wh, *bh;
    int reset_after;
} parts;

static parts parts_of(const efl_op_run *run, const efl_recurrent *r, int d) {
    const int64_t units = run->batch * r->hidden, rows = r->time * run->batch;
    const int reset_after = run->shapes->node->ints[3] != 0;
    parts p = {.gates = run->saved + d * (rows * (r->width + 2 * r->hidden) + units),
               .sums = run->scratch + rows * larger(r->in, reset_after ? 0 : r->hidden),
               .wh = run->w[1] + d * r->hidden * r->width,
               .bh = run->w[3] + d * r->width,
               .reset_after = reset_after};
    p.kept = p.gates + rows * r->width;
    p.states = p.kept + rows * r->hidden;
    p.dh = p.sums + run->batch * r->width;
    return p;
}

/* to(rows, H) = columns of from(rows, ...), or the reverse, according to the row lengths. */
static void copy_columns(float *to, int64_t to_row, const float *from, int64_t from_row, int64_t rows, int64_t count) {
    for (int64_t i = 0; i < rows; i++) memcpy(to + i * to_row, from + i * from_row, (size_t)count * sizeof *to);
}

/* What the parts of one direction share. */
typedef struct {
    efl_recurrent r;
    int d;
    float *turned; /* (3H, H) Wh transposed */
    float *square; /* (H, H) of h~ alone, without linear_before_reset */
} direction;

static direction direction_of(const efl_op_run *run) {
    direction dir = {.r = efl_recurrent_of(run->shapes),
                     .turned = run->scratch + run->batch * run->shapes->scratch.per_sample};
    dir.square = dir.turned + dir.r.hidden * dir.r.width;
    return dir;
}

static void forward_part(const efl_op_run *whole, efl_share share, const void *context) {
    const direction *dir = context;
    const efl_recurrent *r = &dir->r;
    const efl_op_run part = efl_samples_of(whole, share), *run = &part;
    const parts p = parts_of(run, r, dir->d);
    const int64_t B = run->batch, H = r->hidden, units = B * H;
    efl_time_major(run, r, dir->d);
    efl_gemm(run, p.gates, run->scratch, r->in, 1, run->w[0] + dir->d * r->in * r->width, run->w[2] + dir->d * r->width,
             r->time * B, r->width, r->in, 0);
    efl_recurrent_start(run, r, dir->d, 0, p.states);
    for (int64_t t = 0; t < r->time && !efl_stopped(run); t++) {
        float *gates = p.gates + t * B * r->width, *kept = p.kept + t * units, *h = p.states + t * units;
        efl_gemm(run, p.sums, h, H, 1, p.wh, p.bh, B, r->width, H, 0);
        efl_kernels->gru_gates(gates, p.sums, h, kept, p.reset_after, B, H);
        if (!p.reset_after) efl_gemm(run, p.sums, kept, H, 1, dir->square, p.bh + 2 * H, B, H, H, 0);
        efl_kernels->gru_blend(gates, p.reset_after ? NULL : p.sums, h, h + units, B, H);
        efl_recurrent_put(run, r, dir->d, t, h + units);
    }
}

static void forward(const efl_op_run *run) {
    direction dir = direction_of(run);
    for (; dir.d < dir.r.directions; dir.d++) {
        const parts p = parts_of(run, &dir.r, dir.d);
        const int64_t H = dir.r.hidden;
        if (!p.reset_after) copy_columns(dir.square, H, p.wh + 2 * H, dir.r.width, H, H);
        efl_parallel(run, efl_recurrent_parts(run), forward_part, &dir);
    }
}

static void backward_part(const efl_op_run *whole, efl_share share, const void *context) {
    const direction *dir = context;
    const efl_recurrent *r = &dir->r;
    const efl_op_run part = efl_samples_of(whole, share), *run = &part;
    const parts p = parts_of(run, r, dir->d);
    const int64_t B = run->batch, H = r->hidden, units = B * H;
    const float *turned_h = dir->turned + 2 * H * H; /* h~'s rows */
    memset(p.dh, 0, (size_t)units * sizeof *p.dh);
    for (int64_t t = r->time - 1; t >= 0 && !efl_stopped(run); t--) {
        float *gates = p.gates + t * B * r->width, *kept = p.kept + t * units;
        const float *before = p.states + t * units;
        efl_recurrent_take(run, r, dir->d, t, p.dh);
        efl_kernels->gru_blend_backward(gates, before, p.dh, B, H);
        if (!p.reset_after) efl_gemm(run, p.sums, gates + 2 * H, r->width, 1, turned_h, NULL, B, H, H, 0);
        efl_kernels->gru_gates_backward(gates, kept, p.reset_after ? NULL : p.sums, before, p.dh, B, H);
        if (t == 0 && run->dw[EFL_STATES] == NULL) break;
        efl_gemm(run, p.dh, gates, r->width, 1, dir->turned, NULL, B, H, 2 * H, 1);
        if (p.reset_after) efl_gemm(run, p.dh, kept, H, 1, turned_h, NULL, B, H, H, 1);
    }
    efl_recurrent_input_backward(run, r, dir->d, p.gates);
}

/* The gradients of params, which a part's samples add to. Overwrites the gates: their columns for h~ become the
 * gradient of h's sum if reset_after, else zero, and r h gets a product of its own. */
static void add_gradients(const efl_op_run *run, const direction *dir) {
    const efl_recurrent *r = &dir->r;
    const parts p = parts_of(run, r, dir->d);
    const int64_t H = r->hidden, width = r->width, rows = r->time * run->batch;
    efl_recurrent_start_backward(run, r, dir->d, 0, p.dh);
    if (run->dw[2] != NULL) efl_kernels->add_rows(run->dw[2] + dir->d * width, p.gates, rows, width);
    efl_recurrent_input_weight(run, r, dir->d, p.gates);
    if (p.reset_after) copy_columns(p.gates + 2 * H, width, p.kept, H, rows, H);
    if (run->dw[3] != NULL) efl_kernels->add_rows(run->dw[3] + dir->d * width, p.gates, rows, width);
    if (run->dw[1] == NULL) return;
    float *dwh = run->dw[1] + dir->d * H * width;
    if (!p.reset_after) {
        copy_columns(run->scratch, H, p.gates + 2 * H, width, rows, H);
        for (int64_t i = 0; i < rows; i++) memset(p.gates + i * width + 2 * H, 0, (size_t)H * sizeof *p.gates);
        efl_gemm(run, dir->square, p.kept, 1, H, run->scratch, NULL, H, H, rows, 0);
        for (int64_t i = 0; i < H; i++) efl_kernels->add(dwh + i * width + 2 * H, dir->square + i * H, H);
    }
    efl_gemm(run, dwh, p.states, 1, H, p.gates, NULL, H, width, rows, 1);
}

static void backward(const efl_op_run *run) {
    direction dir = direction_of(run);
    const int64_t count = efl_recurrent_parts(run);
    for (; dir.d < dir.r.directions; dir.d++) {
        const float *wh = run->w[1] + dir.d * dir.r.hidden * dir.r.width;
        efl_kernels->transpose(dir.turned, wh, 1, dir.r.hidden, dir.r.width);
        efl_parallel(run, count, backward_part, &dir);
        for (int64_t i = 0; i < count && !efl_stopped(run); i++) {
            const efl_op_run part = efl_samples_of(run, (efl_share){i, count, 0});
            add_gradients(&part, &dir);
        }
    }
}

const efl_op efl_op_gru = {
    .name = "gru",
    .flags = EFL_READS_X,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 4,
    .max_params = EFL_STATES + STATES,
    .num_ints = 4,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
