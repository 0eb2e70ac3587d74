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
        double peak = x[argmax(x, run->size)], sum = 0;
        run->correct += argmax(x, run->size) == label;
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

/* (x - t)^2; d/dx = 2 (x - t) */
static double run_mse(efl_loss_run *run) {
    double loss = 0;
    for (int64_t i = 0; i < run->rows * run->size; i++) {
        const float error = run->logits[i] - run->targets[i];
        loss += (double)error * error;
        if (run->dlogits != NULL) run->dlogits[i] = 2 * error * run->scale;
    }
    return loss;
}

const efl_loss efl_loss_cross_entropy = {
    .name = "cross_entropy", .takes_labels = 1, .has_accuracy = 1, .run = run_cross_entropy};
const efl_loss efl_loss_bce = {.name = "bce", .has_accuracy = 1, .run = run_bce};
const efl_loss efl_loss_mse = {.name = "mse", .run = run_mse};
