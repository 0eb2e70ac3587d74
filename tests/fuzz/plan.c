/* plan.c: a libFuzzer target for the compiler of plans and one step of training, under the sanitizers.
 *
 * The input is a plan in bytes, read as far as it goes and then as zeros; plans.py writes seeds.
 *
 *     options | batch | shape of the input | count, and of each param: shape, trained
 *     | count, and of each node: op, and four lists: inputs, params, ints (numbers), floats (doubles)
 *     | loss | loss_input, output (numbers) | count, and of each of several losses: loss, its input (number), weight /
 * 16
 *
 * A number is one byte, minus 16; or 255 and eight bytes. All else is single bytes. Counts and numbers beyond what the
 * core knows reach it, but for the lengths of its fixed arrays, which Cython checks.
 */
#include "efl.h"
#include "ops/ops.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SAMPLES = 5, MOST_NODES = 24, MOST_PARAMS = 24, MOST_ARENA = 1 << 22, MOST_WORK = 1 << 20 };

#define NAME(name) #name,
static const char *const ops[] = {EFL_OPS(NAME) "conv9"};
static const char *const losses[] = {EFL_LOSSES(NAME) "loss9"};
#define COUNT(array) (sizeof array / sizeof *array)

typedef struct {
    const uint8_t *at, *end;
} reader;

static int byte(reader *in) {
    return in->at < in->end ? *in->at++ : 0;
}

static uint64_t eight(reader *in) {
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits |= (uint64_t)byte(in) << 8 * i;
    return bits;
}

static int64_t number(reader *in) {
    const int first = byte(in);
    return first == 255 ? (int64_t)eight(in) : first - 16;
}

static double real(reader *in) {
    const uint64_t bits = eight(in);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static int at_most(reader *in, int most) {
    return byte(in) % (most + 1);
}

static efl_shape shape(reader *in) {
    efl_shape made = {.ndim = at_most(in, EFL_MAX_DIMS)};
    for (int i = 0; i < made.ndim; i++) made.dim[i] = number(in);
    return made;
}

static efl_node node(reader *in) {
    efl_node made = {.num_inputs = 0};
    strcpy(made.op, ops[(size_t)byte(in) % COUNT(ops)]);
    made.num_inputs = at_most(in, EFL_MAX_INPUTS);
    for (int i = 0; i < made.num_inputs; i++) made.inputs[i] = (int)number(in);
    made.num_params = at_most(in, EFL_MAX_PARAMS);
    for (int i = 0; i < made.num_params; i++) made.params[i] = (int)number(in);
    made.num_ints = at_most(in, EFL_MAX_INTS);
    for (int i = 0; i < made.num_ints; i++) made.ints[i] = number(in);
    made.num_floats = at_most(in, EFL_MAX_FLOATS);
    for (int i = 0; i < made.num_floats; i++) made.floats[i] = real(in);
    return made;
}

/* Exactly as long as it must be, so that a read or a write beyond it is seen. */
static float *numbers(int64_t n, float value) {
    float *x = malloc((size_t)n * sizeof *x);
    if (x == NULL && n > 0) abort();
    for (int64_t i = 0; i < n; i++) x[i] = i & 1 ? value : -value;
    return x;
}

static void use(efl_net *net, int64_t in, int options) {
    efl_error error;
    const int64_t count = efl_net_num_params(net), size = efl_net_target_size(net), labels = efl_net_label_count(net);
    const int64_t out = SAMPLES * efl_net_size(net, efl_net_output(net));
    float *params = numbers(count, 0.1f), *delta = numbers(count, 0), *output = numbers(out, 0);
    float *x = numbers(SAMPLES * in, 1), *y = numbers(SAMPLES * size, 1);
    int64_t *classes = calloc((size_t)(SAMPLES * labels + !labels), sizeof *classes);
    if (classes == NULL) abort();
    for (int64_t i = 0; i < SAMPLES * in && options & 1; i++) x[i] = (float)(i % 3); /* tokens */
    const efl_data data = {x, size ? NULL : classes, size ? y : NULL, SAMPLES};
    const efl_fit_options fit = {.epochs = 1,
                                 .batch_size = options & 2 ? SAMPLES : 2,
                                 .lr = 0.01,
                                 .momentum = options & 4 ? 0.9 : 0,
                                 .adam = options >> 3 & 1,
                                 .nesterov = (options & 12) == 4,
                                 .weight_decay = options & 16 ? 0.1 : 0,
                                 .prox_mu = options & 32 ? 0.1 : 0,
                                 .clip_norm = options & 64 ? 0.5 : 0,
                                 .buffered = options >> 7 & 1,
                                 .correction = (options & 34) == 34 ? params : NULL};
    efl_fit_result result;
    double loss, accuracy;
    efl_fit(net, params, &data, &fit, delta, &result, &error);
    efl_gradient(net, params, &data, delta, &error);
    efl_evaluate(net, params, &data, &loss, &accuracy, &error);
    efl_predict(net, params, x, SAMPLES, output, &error);
    free(params), free(delta), free(output), free(x), free(y), free(classes);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    efl_error error;
    (void)argc, (void)argv;
    if (efl_isa_select(getenv("EDGEFL_ISA"), &error) != EFL_OK) abort();
    return 0;
}

static int look(const uint8_t *data, size_t size) {
    reader in = {data, data + size};
    efl_node nodes[MOST_NODES];
    efl_param params[MOST_PARAMS];
    const int options = byte(&in), batch = byte(&in);
    efl_plan plan = {.input = shape(&in), .nodes = nodes, .params = params};
    plan.num_params = at_most(&in, MOST_PARAMS);
    for (int i = 0; i < plan.num_params; i++) {
        params[i].shape = shape(&in);
        params[i].trainable = byte(&in) & 1;
    }
    plan.num_nodes = at_most(&in, MOST_NODES);
    for (int i = 0; i < plan.num_nodes; i++) nodes[i] = node(&in);
    plan.loss = losses[(size_t)byte(&in) % COUNT(losses)];
    plan.loss_input = (int)number(&in), plan.output = (int)number(&in);

    efl_plan_loss several[EFL_MAX_LOSSES];
    plan.num_losses = at_most(&in, EFL_MAX_LOSSES), plan.losses = several;
    for (int i = 0; i < plan.num_losses; i++) {
        several[i].name = losses[(size_t)byte(&in) % COUNT(losses)];
        several[i].input = (int)number(&in);
        several[i].weight = byte(&in) / 16.0;
    }

    efl_net *net;
    efl_error error;
    efl_needs needs = {0};
    const int known = efl_plan_needs(&plan, batch, &needs, &error);
    if (efl_net_new(&net, &plan, batch, MOST_ARENA, &error) != EFL_OK) {
        if (net != NULL || error.message[0] == 0) abort();
        return 0;
    }
    const int64_t arena = efl_net_arena_bytes(net);
    if (known != EFL_OK || needs.mixes_samples != efl_net_mixes_samples(net)) abort();
    if (needs.least_bytes > arena || arena > needs.arena_bytes || arena > MOST_ARENA) abort();
    if (needs.arena_bytes <= MOST_ARENA && arena != needs.arena_bytes) abort();
    int64_t work = efl_net_num_params(net) + efl_net_size(net, 0);
    for (int i = 0; i < plan.num_nodes && work <= MOST_WORK; i++) work += efl_net_flops(net, i) + efl_net_size(net, i);
    if (work <= MOST_WORK) use(net, efl_net_size(net, 0), options);
    efl_net_free(net);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const clock_t began = clock(); /* the processor's time: the machine may have other work */
    const int ended = look(data, size);
    if (clock() - began > CLOCKS_PER_SEC) abort();
    return ended;
}
