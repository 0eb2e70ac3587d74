/* no_allocation.c: counts what efl_fit allocates, linked with --wrap of malloc, calloc, realloc and free.
 *
 * One net of every kind of memory (values kept and overwritten, saved, scratch, spare gradients, state) takes one step
 * and then fifty, plainly, with momentum, clipped and with Adam: the counts must be equal.
 */
#include "efl.h"

#include <stdio.h>
#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void __real_free(void *memory);

static int64_t calls;

void *__wrap_malloc(size_t size) {
    calls++;
    return __real_malloc(size);
}
void *__wrap_calloc(size_t count, size_t size) {
    calls++;
    return __real_calloc(count, size);
}
void *__wrap_realloc(void *memory, size_t size) {
    calls++;
    return __real_realloc(memory, size);
}
void __wrap_free(void *memory) {
    calls++;
    __real_free(memory);
}

enum { SAMPLES = 50, WIDE = 6, ROWS = 3, NODES = 11, PARAMS = 9 };

static const efl_node nodes[NODES] = {
    {.op = "dense", .num_inputs = 1, .inputs = {0}, .num_params = 2, .params = {0, 1}},
    {.op = "batch_norm",
     .num_inputs = 1,
     .inputs = {1},
     .num_params = 4,
     .params = {2, 3, 7, 8},
     .num_floats = 2,
     .floats = {1e-3, 0.9}},
    {.op = "gelu", .num_inputs = 1, .inputs = {2}, .num_ints = 1},
    {.op = "mul", .num_inputs = 2, .inputs = {3, 1}, .num_ints = 1},
    {.op = "layer_norm",
     .num_inputs = 1,
     .inputs = {4},
     .num_params = 2,
     .params = {4, 5},
     .num_floats = 1,
     .floats = {1e-3}},
    {.op = "dropout", .num_inputs = 1, .inputs = {5}, .num_floats = 1, .floats = {0.2}},
    {.op = "mul", .num_inputs = 1, .inputs = {6}, .num_params = 1, .params = {6}, .num_ints = 1},
    {.op = "concat", .num_inputs = 2, .inputs = {7, 1}, .num_ints = 1, .ints = {1}},
    {.op = "transpose", .num_inputs = 1, .inputs = {8}, .num_ints = 2, .ints = {1, 0}},
    {.op = "mean", .num_inputs = 1, .inputs = {9}, .num_ints = 1, .ints = {1}},
    {.op = "relu", .num_inputs = 1, .inputs = {10}},
};
static const efl_param params[PARAMS] = {
    {{2, {WIDE, WIDE}}, 1}, {{1, {WIDE}}, 1}, {{1, {WIDE}}, 1}, {{1, {WIDE}}, 1}, {{1, {WIDE}}, 1},
    {{1, {WIDE}}, 1},       {{1, {WIDE}}, 1}, {{1, {WIDE}}, 0}, {{1, {WIDE}}, 0},
};
static const efl_plan plan = {.input = {2, {ROWS, WIDE}},
                              .num_nodes = NODES,
                              .nodes = nodes,
                              .num_params = PARAMS,
                              .params = params,
                              .loss = "cross_entropy",
                              .loss_input = NODES,
                              .output = NODES};

/* Calls of the allocator in `steps` steps; -1 if they fail. */
static int64_t count(efl_net *net, efl_fit_options options, int64_t steps) {
    static float start[WIDE * (WIDE + PARAMS - 1)], delta[WIDE * (WIDE + PARAMS - 1)], x[SAMPLES * ROWS * WIDE];
    static int64_t labels[SAMPLES];
    const efl_data data = {.x = x, .labels = labels, .n = SAMPLES};
    efl_fit_result result;
    efl_error error;
    for (size_t i = 0; i < sizeof start / sizeof *start; i++) start[i] = 0.5f + 0.01f * (float)(i % 7);
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    options.epochs = steps;
    options.max_steps = steps;
    calls = 0;
    if (efl_fit(net, start, &data, &options, delta, &result, &error) != EFL_OK || result.steps != steps) return -1;
    return calls;
}

int main(void) {
    static float correction[WIDE * (WIDE + PARAMS - 1)];
    const efl_fit_options variants[] = {
        {.batch_size = 10, .lr = 0.01},
        {.batch_size = 7, .lr = 0.01, .momentum = 0.9, .nesterov = 1, .weight_decay = 0.1, .prox_mu = 0.1},
        {.batch_size = 10, .lr = 0.01, .clip_norm = 0.1},
        {.batch_size = 10, .lr = 0.001, .momentum = 0.9, .adam = 1},
        {.batch_size = 10, .lr = 0.01, .correction = correction},
    };
    efl_net *net;
    efl_error error;
    if (efl_net_new(&net, &plan, 10, 0, &error) != EFL_OK) return fprintf(stderr, "%s\n", error.message), 1;
    for (int i = 0; i < 5; i++) {
        const int64_t one = count(net, variants[i], 1), many = count(net, variants[i], 50);
        if (one < 1 || one != many) {
            fprintf(stderr, "variant %d: %lld calls for a step, %lld for fifty\n", i, (long long)one, (long long)many);
            return 1;
        }
    }
    efl_net_free(net);
    return 0;
}
