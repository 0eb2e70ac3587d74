/* loss.c: cross entropy from logits, binary cross entropy from logits, mean squared error.
 *
 * A loss returns the sum over the samples it is given, and its gradient times `scale`: the caller makes a mean
 * over any number of pieces of it.
 */
#include "ops.h"

#include <math.h>
#include <string.h>

static int64_t argmax(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* log sum exp(x) - x[label]; d/dx = softmax(x) - onehot(label) */
static double run_cross_entropy(efl_loss_run *run) {
    double loss = 0;
    for (int64_t b = 0; b < run->rows; b++) {
        const float *x = run->logits + b * run->size;
        const int64_t label = run->labels[b];
        const int64_t best = argmax(x, run->size);
        double peak = x[best], sum = 0;
        run->correct += best == label;
        if (run->dlogits != NULL) {
            float *dx = run->dlogits + b * run->size;
            loss += (double)efl_kernels->softmax(dx, x, run->size) - x[label];
            dx[label] -= 1;
            for (int64_t i = 0; i < run->size; i++) dx[i] *= run->scale;
        } else {
            for (int64_t i = 0; i < run->size; i++) sum += exp(x[i] - peak);
            loss += peak + log(sum) - x[label];
        }
    }
    return loss;
}

/* max(x, 0) - x t + log(1 + e^-|x|): no exponential overflows; d/dx = sigmoid(x) - t */
static double run_bce(efl_loss_run *run) {
    double loss = 0;
    const int64_t n = run->rows * run->size;
    for (int64_t i = 0; i < n; i++) {
        const double x = run->logits[i], t = run->targets[i];
        loss += (x < 0 ? 0 : x) - x * t + log1p(exp(-fabs(x)));
        run->correct += (x >= 0) == (t >= 0.5);
    }
    if (run->dlogits != NULL) {
        efl_kernels->sigmoid(run->dlogits, run->logits, n);
        for (int64_t i = 0; i < n; i++) run->dlogits[i] = (run->dlogits[i] - run->targets[i]) * run->scale;
    }
    return loss;
}

/* (x - t)^2; d/dx = 2 (x - t). In pieces, so that every loop has one kind of number and becomes vectors. */
static double run_mse(efl_loss_run *run) {
    enum { PIECE = 256 };
    float errors[PIECE], factor = 2 * run->scale;
    double loss = 0;
    const int64_t n = run->rows * run->size;
    for (int64_t at = 0; at < n; at += PIECE) {
        const int64_t size = n - at < PIECE ? n - at : PIECE;
        for (int64_t i = 0; i < size; i++) errors[i] = run->logits[at + i] - run->targets[at + i];
        loss += efl_kernels->sum_squares(errors, size);
        for (int64_t i = 0; run->dlogits != NULL && i < size; i++) run->dlogits[at + i] = factor * errors[i];
    }
    return loss;
}

const efl_loss efl_loss_cross_entropy = {
    .name = "cross_entropy", .takes_labels = 1, .has_accuracy = 1, .run = run_cross_entropy};
const efl_loss efl_loss_bce = {.name = "bce", .has_accuracy = 1, .run = run_bce};
const efl_loss efl_loss_mse = {.name = "mse", .run = run_mse};
