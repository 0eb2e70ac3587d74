/* heads.c: nets with several slices of tokens and several losses, and callers that change y and x while a net works.
 *
 * Build with -fsanitize=address,undefined (`make sanitize`). The input has 7 columns: two tokens below 5, two below 3,
 * three numbers. Both losses read one chain, so the second depends on what the first reads.
 */
#include "codecs/codecs.h"
#include "efl.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 37, COLUMNS = 7, CLASSES = 4, OUTPUTS = 2, EPOCHS = 400 };

static void require(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

#define SLICE(start, size)                                                      \
    {                                                                           \
        .op = "slice", .num_inputs = 1, .num_ints = 3, .ints = {0, start, size} \
    }
#define ONE(name, x)                               \
    {                                              \
        .op = name, .num_inputs = 1, .inputs = {x} \
    }
#define OWN(name, x, w)                                                            \
    {                                                                              \
        .op = name, .num_inputs = 1, .inputs = {x}, .num_params = 1, .params = {w} \
    }
static const efl_node nodes[] = {
    SLICE(0, 2),
    OWN("embedding", 1, 0),
    ONE("flatten", 2),                    /* 3: (6) */
    SLICE(2, 2),
    OWN("embedding", 4, 1),
    ONE("flatten", 5),                    /* 6: (6) */
    SLICE(4, 3),                                                               /* 7: (3) */
    {.op = "concat", .num_inputs = 3, .inputs = {3, 6, 7}, .num_ints = 1},     /* 8: (15) */
    OWN("dense", 8, 2),
    ONE("tanh", 9),
    OWN("dense", 10, 3),                   /* 9: logits; 11: (2) */
    {.op = "concat", .num_inputs = 2, .inputs = {9, 11}, .num_ints = 1},       /* 12: the output, (6) */
};
static const efl_param params[] = {
    {{2, {5, 3}}, 1}, {{2, {3, 3}}, 1}, {{2, {15, CLASSES}}, 1}, {{2, {CLASSES, OUTPUTS}}, 1}};

static efl_plan plan_of(const efl_plan_loss *losses, int count) {
    return (efl_plan){.input = {1, {COLUMNS}},
                      .num_nodes = sizeof nodes / sizeof *nodes,
                      .nodes = nodes,
                      .num_params = sizeof params / sizeof *params,
                      .params = params,
                      .loss = "cross_entropy",
                      .loss_input = 9,
                      .output = 12,
                      .num_losses = count,
                      .losses = losses};
}

static float x[SAMPLES * COLUMNS], y[SAMPLES * (1 + OUTPUTS)];
static int64_t labels[SAMPLES];

static void fill(void) {
    for (int i = 0; i < SAMPLES; i++) {
        for (int c = 0; c < COLUMNS; c++)
            x[i * COLUMNS + c] = c < 2 ? (float)((i + c) % 5) : c < 4 ? (float)((i * c) % 3) : sinf((float)(i + c));
        labels[i] = i % CLASSES;
        y[i * 3] = (float)(i % CLASSES);
        y[i * 3 + 1] = y[i * 3 + 2] = cosf((float)i);
    }
}

static void train_both(int64_t batch) {
    static const efl_plan_loss losses[] = {{"cross_entropy", 9, 1}, {"mse", 11, 0.5}};
    const efl_plan plan = plan_of(losses, 2);
    efl_net *net;
    efl_error error;
    require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_OK, error.message);
    require(efl_net_target_size(net) == 3 && efl_net_label_count(net) == 0, "three columns of y");
    const int64_t count = efl_net_num_params(net);
    float *start = calloc((size_t)count, sizeof *start), *delta = calloc((size_t)count, sizeof *delta),
          out[SAMPLES * 6];
    require(start != NULL && delta != NULL, "calloc");
    for (int64_t i = 0; i < count; i++) start[i] = sinf((float)i);
    const efl_data data = {x, NULL, y, SAMPLES, NULL};
    const efl_fit_options options = {.epochs = 2, .batch_size = 10, .lr = 0.05, .momentum = 0.5};
    efl_fit_result result;
    double loss, accuracy;
    require(efl_fit(net, start, &data, &options, delta, &result, &error) == EFL_OK, "fit");
    require(efl_gradient(net, start, &data, delta, &error) == EFL_OK && efl_all_finite(delta, count), "gradient");
    require(efl_evaluate(net, start, &data, &loss, &accuracy, &error) == EFL_OK && accuracy >= 0, "evaluate");
    require(efl_predict(net, start, x, SAMPLES, out, &error) == EFL_OK && efl_all_finite(out, SAMPLES * 6), "predict");
    y[3] = 1.5f;
    require(efl_gradient(net, start, &data, delta, &error) == EFL_DATA, "half a label refused");
    y[3] = NAN;
    require(efl_gradient(net, start, &data, delta, &error) == EFL_DATA, "NaN as a label refused");
    y[3] = CLASSES;
    require(efl_gradient(net, start, &data, delta, &error) == EFL_DATA, "label refused");
    y[3] = 0;
    x[2] = 4; /* of the first vocabulary, not of the second */
    require(efl_predict(net, start, x, SAMPLES, out, &error) == EFL_DATA, "token refused");
    x[2] = 0;
    x[4] = 1e30f;
    require(efl_predict(net, start, x, SAMPLES, out, &error) == EFL_OK, "numbers are no tokens");
    x[4] = 0;
    efl_net_free(net);
    free(start), free(delta);
}

static void refuse_wrong_losses(void) {
    static const efl_plan_loss wrong[][2] = {
        {{"cross_entropy", 9, 1}, {"mse", 9, 1}},        {{"cross_entropy", 9, 1}, {"mse", 13, 1}},
        {{"cross_entropy", 0, 1}, {"mse", 11, 1}},       {{"cross_entropy", 9, -1}, {"mse", 11, 1}},
        {{"cross_entropy", 9, NAN}, {"mse", 11, 1}},     {{"cross_entropy", 9, 1}, {"what", 11, 1}},
        {{"cross_entropy", 9, INFINITY}, {"mse", 11, 1}}};
    efl_net *net;
    efl_error error;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const efl_plan plan = plan_of(wrong[i], 2);
        require(efl_net_new(&net, &plan, 3, 0, &error) == EFL_MODEL && net == NULL, "wrong losses refused");
    }
    for (int count = -1; count < 10; count++) {
        const efl_plan plan = plan_of(wrong[0], count);
        if (count != 0 && count != 2)
            require(count > 1 && count < 9 ? 1 : efl_net_new(&net, &plan, 3, 0, &error) == EFL_MODEL, "their number");
    }
}

static atomic_int done;

/* A caller that changes labels and tokens under a net that trains: `volatile`, since that is what is tried here. */
static void *spoil(void *nothing) {
    volatile int64_t *label = labels;
    volatile float *token = x;
    for (int64_t turn = 0; !atomic_load(&done); turn++)
        for (int i = 0; i < SAMPLES; i++) {
            label[i] = turn % 2 ? i % CLASSES : turn % 4 ? INT64_MAX - turn : -turn;
            token[i * COLUMNS + turn % 4] = turn % 2 ? 1 : turn % 4 ? 1e9f : NAN;
        }
    return nothing;
}

static void train_while_spoiled(void) {
    const efl_plan plan = plan_of(NULL, 0);
    efl_net *net;
    efl_error error;
    require(efl_net_new(&net, &plan, 10, 0, &error) == EFL_OK, error.message);
    const int64_t count = efl_net_num_params(net);
    float *start = calloc((size_t)count, sizeof *start), *delta = calloc((size_t)count, sizeof *delta);
    require(start != NULL && delta != NULL, "calloc");
    const efl_data data = {x, labels, NULL, SAMPLES, NULL};
    const efl_fit_options options = {.epochs = EPOCHS, .batch_size = 10, .lr = 0.01};
    for (int turn = 0; turn < 5; turn++) {
        pthread_t other;
        efl_fit_result result;
        fill();
        atomic_store(&done, 0);
        require(pthread_create(&other, NULL, spoil, NULL) == 0, "thread");
        const int code = efl_fit(net, start, &data, &options, delta, &result, &error);
        atomic_store(&done, 1);
        pthread_join(other, NULL);
        require(code == EFL_OK || code == EFL_DATA, "trained or refused");
    }
    efl_net_free(net);
    free(start), free(delta);
}

int main(void) {
    efl_error error;
    require(efl_isa_select(getenv("EDGEFL_ISA"), &error) == EFL_OK, "instruction set");
    for (int64_t batch = 1; batch < 12; batch += 5) {
        fill();
        train_both(batch);
    }
    refuse_wrong_losses();
    train_while_spoiled();
    printf("%s: several losses and tokens, nothing found\n", efl_isa());
    return 0;
}
