/* activation.c: relu, tanh, sigmoid by element; softmax and log_softmax along the last axis. */
#include "bits.h"

#include <math.h>

static int infer(efl_op_shapes *s, efl_error *error) {
    (void)error;
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    return EFL_OK;
}

static int64_t elements(const efl_op_run *run) {
    return run->batch * efl_shape_size(&run->shapes->y);
}

#define EFL_ACTIVATION(activation)                                                          \
    static void activation##_forward(const efl_op_run *run) {                               \
        for (int64_t i = 0, n; (n = efl_piece(run, i, elements(run), 1)) > 0; i += n)       \
            efl_kernels->activation(run->y + i, run->x[0] + i, n);                          \
    }                                                                                       \
    static void activation##_backward(const efl_op_run *run) {                              \
        for (int64_t i = 0, n; (n = efl_piece(run, i, elements(run), 1)) > 0; i += n)       \
            efl_kernels->activation##_backward(run->dx[0] + i, run->dy + i, run->y + i, n); \
    }                                                                                       \
    const efl_op efl_op_##activation = {                                                    \
        .name = #activation,                                                                \
        .flags = EFL_IN_PLACE | EFL_READS_Y | EFL_BY_SAMPLES,                               \
        .min_inputs = 1,                                                                    \
        .max_inputs = 1,                                                                    \
        .infer = infer,                                                                     \
        .forward = activation##_forward,                                                    \
        .backward = activation##_backward,                                                  \
    };

static void relu_forward(const efl_op_run *run) {
    for (int64_t i = 0, n; (n = efl_piece(run, i, elements(run), 1)) > 0; i += n)
        efl_kernels->relu(run->y + i, run->x[0] + i, n);
    if (run->bits != NULL) efl_bits_keep(run, 0, INFINITY);
}

static void relu_backward(const efl_op_run *run) {
    if (run->bits != NULL) {
        efl_bits_backward(run);
        return;
    }
    for (int64_t i = 0, n; (n = efl_piece(run, i, elements(run), 1)) > 0; i += n)
        efl_kernels->relu_backward(run->dx[0] + i, run->dy + i, run->y + i, n);
}

const efl_op efl_op_relu = {.name = "relu",
                            .flags = EFL_IN_PLACE | EFL_READS_Y | EFL_BITS | EFL_BY_SAMPLES,
                            .min_inputs = 1,
                            .max_inputs = 1,
                            .infer = infer,
                            .forward = relu_forward,
                            .backward = relu_backward};

EFL_ACTIVATION(tanh)
EFL_ACTIVATION(sigmoid)

static int infer_row(efl_op_shapes *s, efl_error *error) {
    if (s->x[0].ndim < 1) return efl_fail(error, EFL_MODEL, "needs an input with an axis");
    return infer(s, error);
}

static int64_t row_length(const efl_op_run *run) {
    return run->shapes->y.dim[run->shapes->y.ndim - 1];
}

/* For each row: its elements are at i, n of them. */
#define FOR_ROWS(run, i, n)                                                                                           \
    for (int64_t n = row_length(run), at = 0, piece; (piece = efl_piece(run, at, elements(run), n)) > 0; at += piece) \
        for (int64_t i = at; i < at + piece; i += n)

static void softmax_forward(const efl_op_run *run) {
    FOR_ROWS(run, i, n) efl_kernels->softmax(run->y + i, run->x[0] + i, n);
}

static void softmax_backward(const efl_op_run *run) {
    FOR_ROWS(run, i, n) efl_kernels->softmax_backward(run->dx[0] + i, run->dy + i, run->y + i, n);
}

static void log_softmax_forward(const efl_op_run *run) {
    FOR_ROWS(run, i, n) {
        const double total = efl_kernels->softmax(run->y + i, run->x[0] + i, n);
        for (int64_t j = i; j < i + n; j++) run->y[j] = (float)(run->x[0][j] - total);
    }
}

/* dx = dy - e^y sum(dy) */
static void log_softmax_backward(const efl_op_run *run) {
    FOR_ROWS(run, i, n) {
        float sum = 0;
        for (int64_t j = i; j < i + n; j++) sum += run->dy[j];
        for (int64_t j = i; j < i + n; j++) run->dx[0][j] = run->dy[j] - expf(run->y[j]) * sum;
    }
}

const efl_op efl_op_softmax = {.name = "softmax",
                               .flags = EFL_READS_Y | EFL_BY_SAMPLES,
                               .min_inputs = 1,
                               .max_inputs = 1,
                               .infer = infer_row,
                               .forward = softmax_forward,
                               .backward = softmax_backward};

const efl_op efl_op_log_softmax = {.name = "log_softmax",
                                   .flags = EFL_READS_Y | EFL_BY_SAMPLES,
                                   .min_inputs = 1,
                                   .max_inputs = 1,
                                   .infer = infer_row,
                                   .forward = log_softmax_forward,
                                   .backward = log_softmax_backward};
