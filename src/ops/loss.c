/* loss.c: of labels cross_entropy, focal and hinge; of targets bce, mse, l1 and huber. All from logits.
 *
 * A loss returns the sum over its samples, and writes the gradient times `scale`. So the caller can compute a mean over
 * several pieces.
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
            loss += efl_kernels->softmax(dx, x, run->size) - x[label];
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
#ifdef EFL_PROFILE_SMALL
    enum { PIECE = 32 };
#else
    enum { PIECE = 256 };
#endif
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

/* |x - t|; d/dx = its sign, 0 at 0 */
static double run_l1(efl_loss_run *run) {
    double loss = 0;
    for (int64_t i = 0; i < run->rows * run->size; i++) {
        const float error = run->logits[i] - run->targets[i];
        loss += fabs((double)error);
        if (run->dlogits != NULL) run->dlogits[i] = error == 0 ? 0 : copysignf(run->scale, error);
    }
    return loss;
}

/* e^2 / 2 of e = x - t up to |e| = 1, from there |e| - 1/2; d/dx = e within -1..1. Huber 1964. */
static double run_huber(efl_loss_run *run) {
    double loss = 0;
    for (int64_t i = 0; i < run->rows * run->size; i++) {
        const float error = run->logits[i] - run->targets[i];
        const double size = fabs((double)error);
        loss += size < 1 ? size * size / 2 : size - 0.5;
        if (run->dlogits != NULL) run->dlogits[i] = run->scale * (error > 1 ? 1 : error < -1 ? -1 : error);
    }
    return loss;
}

/* The mean over all C classes of max(0, 1 - x[label] + x[i]), i not the label: Crammer and Singer's margin as
 * PyTorch's MultiMarginLoss takes it. */
static double run_hinge(efl_loss_run *run) {
    double loss = 0;
    for (int64_t b = 0; b < run->rows; b++) {
        const float *x = run->logits + b * run->size, share = run->scale / (float)run->size;
        const int64_t label = run->labels[b];
        double sum = 0;
        int64_t violations = 0;
        run->correct += argmax(x, run->size) == label;
        for (int64_t i = 0; i < run->size; i++) {
            const float margin = 1 - x[label] + x[i];
            const int violates = i != label && !(margin <= 0); /* NaN does */
            sum += violates ? margin : 0;
            violations += violates;
            if (run->dlogits != NULL) run->dlogits[b * run->size + i] = violates ? share : 0;
        }
        if (run->dlogits != NULL) run->dlogits[b * run->size + label] = -share * (float)violations;
        loss += sum / (double)run->size;
    }
    return loss;
}

/* -(1 - p)^2 log p of p = softmax(x)[label]: Lin et al. 2017, arXiv:1708.02002, gamma 2.
 * d/dx = (2 (1 - p) p log p - (1 - p)^2) (onehot(label) - softmax(x)) */
static double run_focal(efl_loss_run *run) {
    double loss = 0;
    for (int64_t b = 0; b < run->rows; b++) {
        const float *x = run->logits + b * run->size;
        const int64_t label = run->labels[b], best = argmax(x, run->size);
        double sum = 0, rest = 0; /* of e^(x - peak): of all, and of all but the label's, so that 1 - p is exact */
        for (int64_t i = 0; i < run->size; i++) {
            const double e = exp((double)x[i] - x[best]);
            sum += e;
            rest += i == label ? 0 : e;
        }
        const double missed = rest / sum, log_p = (double)x[label] - x[best] - log(sum), p = exp(log_p);
        run->correct += best == label;
        loss -= missed * missed * log_p;
        if (run->dlogits == NULL) continue;
        float *dx = run->dlogits + b * run->size;
        const float factor = (float)(missed * missed - 2 * missed * p * log_p) * run->scale;
        efl_kernels->softmax(dx, x, run->size);
        for (int64_t i = 0; i < run->size; i++) dx[i] *= factor;
        dx[label] = -(float)missed * factor;
    }
    return loss;
}

const efl_loss efl_loss_cross_entropy = {
    .name = "cross_entropy", .takes_labels = 1, .has_accuracy = 1, .run = run_cross_entropy};
const efl_loss efl_loss_bce = {.name = "bce", .has_accuracy = 1, .run = run_bce};
const efl_loss efl_loss_mse = {.name = "mse", .run = run_mse};
const efl_loss efl_loss_l1 = {.name = "l1", .run = run_l1};
const efl_loss efl_loss_huber = {.name = "huber", .run = run_huber};
const efl_loss efl_loss_hinge = {.name = "hinge", .takes_labels = 1, .has_accuracy = 1, .run = run_hinge};
const efl_loss efl_loss_focal = {.name = "focal", .takes_labels = 1, .has_accuracy = 1, .run = run_focal};
