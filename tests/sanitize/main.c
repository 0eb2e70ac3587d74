/* main.c: the core without Python, for AddressSanitizer and UndefinedBehaviorSanitizer.
 *
 * Nets of awkward sizes are trained, differentiated, evaluated and asked, on whatever instruction set
 * EDGEFL_ISA names; buffers are exactly as long as they must be. Ends with 0 if nothing was reported.
 */
#include "codecs/codecs.h"
#include "efl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 23 };

/* A race shows at any width and in any window, and ThreadSanitizer takes ten times as long. */
#if defined(__SANITIZE_THREAD__)
enum { WIDTHS = 1, WINDOWS = 8 };
#else
enum { WIDTHS = 4, WINDOWS = 1 };
#endif

static void require(int condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

static float *numbers(int64_t n) {
    float *x = malloc((size_t)(n ? n : 1) * sizeof *x);
    require(x != NULL, "malloc");
    for (int64_t i = 0; i < n; i++) x[i] = sinf((float)i * 0.7f) * 0.3f;
    return x;
}

/* What a net computes: the deltas of four ways to train, a gradient, and its output for all samples. */
typedef struct {
    float *deltas, *gradient, *output; /* (4, P), (P), (SAMPLES, O) */
    double loss;
} results;

static void compute(efl_net *net, const efl_data *data, const float *params, const results *to, double *loss) {
    efl_error error;
    double accuracy;
    const int64_t count = efl_net_num_params(net), out = efl_net_size(net, efl_net_output(net));
    for (int variant = 0; variant < 4; variant++) {
        const efl_fit_options options = {.epochs = 2,
                                         .batch_size = variant & 1 ? SAMPLES : 10,
                                         .lr = 0.01,
                                         .momentum = variant & 2 ? 0.9 : 0,
                                         .weight_decay = 0.1,
                                         .prox_mu = variant & 2 ? 0.1 : 0,
                                         .clip_norm = variant & 2 ? 0.5 : 0};
        efl_fit_result result;
        float *delta = to->deltas + variant * count;
        require(efl_fit(net, params, data, &options, delta, &result, &error) == EFL_OK, "fit");
        require(isfinite(result.loss) && efl_all_finite(delta, count), "finite training");
    }
    require(efl_gradient(net, params, data, to->gradient, &error) == EFL_OK, "gradient");
    require(efl_evaluate(net, params, data, loss, &accuracy, &error) == EFL_OK, "evaluate");
    require(efl_predict(net, params, data->x, SAMPLES, to->output, &error) == EFL_OK, "predict");
    require(efl_all_finite(to->output, SAMPLES * out), "finite output");
}

/* By one thread, and by two or three in turn, with the same bits. Where there are two cores, two threads look out for
 * work, and three sleep at once. */
static void compare_threads(efl_net *net, const efl_data *data, const float *params) {
    efl_error error;
    static int turn;
    const int threads = 2 + turn++ % 2;
    if (EFL_MAX_THREADS == 1) return;
    const int64_t count = efl_net_num_params(net), out = SAMPLES * efl_net_size(net, efl_net_output(net));
    results one = {numbers(4 * count), numbers(count), numbers(out), 0};
    results more = {numbers(4 * count), numbers(count), numbers(out), 0};
    compute(net, data, params, &one, &one.loss);
    require(efl_net_use_threads(net, threads, 0, &error) == EFL_OK && efl_net_threads(net) == threads, "threads");
    compute(net, data, params, &more, &more.loss);
    const int same = memcmp(one.deltas, more.deltas, (size_t)(4 * count) * sizeof(float)) == 0 &&
                     memcmp(one.gradient, more.gradient, (size_t)count * sizeof(float)) == 0 &&
                     memcmp(one.output, more.output, (size_t)out * sizeof(float)) == 0;
    require(same && memcmp(&one.loss, &more.loss, sizeof one.loss) == 0, "the same bits by several threads");
    free(one.deltas), free(one.gradient), free(one.output);
    free(more.deltas), free(more.gradient), free(more.output);
}

/* vocabulary: the input holds tokens below it; 0: numbers */
static void use(efl_net *net, int64_t in, int64_t vocabulary) {
    efl_error error;
    const int64_t count = efl_net_num_params(net), size = efl_net_target_size(net);
    const int64_t out = efl_net_size(net, efl_net_output(net));
    float *params = numbers(count), *x = numbers(SAMPLES * in), *y = numbers(SAMPLES * size),
          *gradient = numbers(count);
    int64_t *labels = calloc((size_t)(SAMPLES * efl_net_label_count(net) + 1), sizeof *labels);
    require(labels != NULL, "calloc");
    const efl_data data = {x, size ? NULL : labels, size ? y : NULL, SAMPLES, NULL};
    for (int64_t i = 0; i < SAMPLES * size; i++) y[i] = fabsf(y[i]);
    for (int64_t i = 0; i < SAMPLES * in && vocabulary > 0; i++) x[i] = (float)(i % vocabulary);
    compare_threads(net, &data, params);
    if (vocabulary > 0) {
        x[SAMPLES * in - 1] = (float)vocabulary;
        require(efl_gradient(net, params, &data, gradient, &error) == EFL_DATA, "token refused");
        x[SAMPLES * in - 1] = 0;
    }
    if (size == 0) {
        labels[SAMPLES * efl_net_label_count(net) - 1] = out + 1000;
        require(efl_gradient(net, params, &data, gradient, &error) == EFL_DATA, "label refused");
    }
    free(params), free(x), free(y), free(gradient), free(labels);
}

/* input(rows, wide) -> dense -> activation -> dense -> add to itself -> flatten -> loss, tail */
static void try_plan(int64_t rows, int64_t wide, int64_t hidden, const char *activation, const char *loss,
                     int64_t batch) {
    efl_node nodes[6] = {
        {.op = "dense", .num_inputs = 1, .inputs = {0}, .num_params = 2, .params = {0, 1}},
        {.num_inputs = 1, .inputs = {1}},
        {.op = "dense", .num_inputs = 1, .inputs = {2}, .num_params = 1, .params = {2}},
        {.op = "add", .num_inputs = 2, .inputs = {3, 2}},
        {.op = "flatten", .num_inputs = 1, .inputs = {4}},
        {.op = "log_softmax", .num_inputs = 1, .inputs = {5}},
    };
    strcpy(nodes[1].op, activation);
    const efl_param params[3] = {{{2, {wide, hidden}}, 1}, {{1, {hidden}}, 1}, {{2, {hidden, hidden}}, 1}};
    const efl_plan plan = {.input = {2, {rows, wide}},
                           .num_nodes = 6,
                           .nodes = nodes,
                           .num_params = 3,
                           .params = params,
                           .loss = loss,
                           .loss_input = 5,
                           .output = 6};
    efl_net *net;
    efl_needs needs;
    efl_error error;
    require(efl_plan_needs(&plan, batch, &needs, &error) == EFL_OK, "needs");
    for (int least = 0; least < 2; least++) {
        require(efl_net_new(&net, &plan, batch, least ? needs.least_bytes : 0, &error) == EFL_OK, "net");
        use(net, rows * wide, 0);
        efl_net_free(net);
    }

    nodes[3].inputs[0] = 4;
    require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_MODEL && net == NULL, "cycle refused");
}

/* Convolutions and pools of awkward geometry: channels, multiplier, outputs, kernel, stride, pads, dilation, groups. */
typedef struct {
    int64_t height, width, channels, times, out, kh, kw, sh, sw, pads[4], dh, dw, groups;
} window;

static const window windows[] = {
    {7, 6, 1, 1, 5, 5, 5, 1, 1, {2, 2, 2, 2}, 1, 1, 1},   {13, 6, 1, 3, 17, 10, 4, 2, 2, {4, 1, 5, 1}, 1, 1, 1},
    {9, 8, 2, 1, 3, 2, 2, 3, 4, {0, 0, 0, 0}, 1, 1, 1},   {11, 10, 4, 2, 6, 3, 3, 4, 2, {3, 2, 1, 4}, 2, 3, 2},
    {5, 5, 3, 1, 4, 1, 1, 2, 2, {0, 0, 0, 0}, 1, 1, 1},   {1, 33, 19, 1, 70, 1, 5, 1, 2, {0, 2, 0, 2}, 1, 1, 1},
    {3, 3, 40, 1, 33, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 1}, {1, 1, 3, 1, 1, 1, 1, 1, 1, {0, 0, 0, 0}, 1, 1, 1},
    {4, 8, 33, 1, 40, 3, 3, 1, 1, {1, 1, 1, 1}, 1, 1, 1},
};

/* depthwise -> conv -> maxpool or avgpool -> flatten -> loss */
static void try_windows(const window *w, int average, int64_t batch) {
    const int64_t *p = w->pads, wide = w->channels * w->times;
    efl_node nodes[4] = {
        {"depthwise", 1, 1, 8, 0, {0}, {0}, {w->sh, w->sw, p[0], p[1], p[2], p[3], w->dh, w->dw}, {0}},
        {"conv", 1, 2, 9, 0, {1}, {1, 2}, {1, 1, w->kh / 2, w->kw / 2, w->kh, w->kw, 1, 1, w->groups}, {0}},
        {"maxpool", 1, 0, 10 + average, 0, {2}, {0}, {2, 3, 1, 2, 1, 2, 0, 1, !average, 1, 1}, {0}},
        {"flatten", 1, 0, 0, 0, {3}, {0}, {0}, {0}},
    };
    if (average) strcpy(nodes[2].op, "avgpool");
    const efl_param params[3] = {
        {{3, {w->kh, w->kw, wide}}, 1}, {{4, {w->kh, w->kw, wide / w->groups, w->out}}, 1}, {{1, {w->out}}, 1}};
    const efl_plan plan = {{3, {w->height, w->width, w->channels}}, 4, 3, nodes, params, "mse", 4, 4, 0, NULL, 0};
    efl_net *net;
    efl_error error;
    require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_OK, error.message);
    use(net, w->height * w->width * w->channels, 0);
    efl_net_free(net);
    for (int i = 0; i < 9; i++) {
        const int64_t kept = nodes[1].ints[i];
        nodes[1].ints[i] = i & 1 ? INT64_MIN : INT64_MAX;
        require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_MODEL, "absurd window refused");
        nodes[1].ints[i] = kept;
    }
}

/* depthwise -> conv_part, every second channel of whose weight is trained */
static void try_parts(const window *w, int64_t batch) {
    const int64_t *p = w->pads, wide = w->channels * w->times, some = (wide + 1) / 2;
    const int64_t word = 0x5555555555555 & ((INT64_C(1) << wide) - 1);
    efl_node nodes[2] = {
        {"depthwise", 1, 1, 8, 0, {0}, {0}, {w->sh, w->sw, p[0], p[1], p[2], p[3], w->dh, w->dw}, {0}},
        {"conv_part", 1, 3, 9, 0, {1}, {1, 3, 2}, {1, 1, w->kh / 2, w->kw / 2, w->kh, w->kw, 1, 1, word}, {0}},
    };
    const efl_param params[4] = {{{3, {w->kh, w->kw, wide}}, 1},
                                 {{4, {w->kh, w->kw, some, w->out}}, 1},
                                 {{1, {w->out}}, 1},
                                 {{4, {w->kh, w->kw, wide - some, w->out}}, 0}};
    const efl_plan plan = {{3, {w->height, w->width, w->channels}}, 2, 4, nodes, params, "mse", 2, 2, 0, NULL, 0};
    efl_net *net;
    efl_needs needs;
    efl_error error;
    require(efl_plan_needs(&plan, batch, &needs, &error) == EFL_OK, error.message);
    for (int least = 0; least < 2; least++) {
        require(efl_net_new(&net, &plan, batch, least ? needs.least_bytes : 0, &error) == EFL_OK, error.message);
        use(net, w->height * w->width * w->channels, 0);
        efl_net_free(net);
    }
    for (int i = 0; i < 9; i++) {
        const int64_t kept = nodes[1].ints[i];
        nodes[1].ints[i] = i & 1 ? INT64_MIN : INT64_MAX;
        require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_MODEL, "absurd window refused");
        nodes[1].ints[i] = kept;
    }
}

/* conv_transpose from the size that the window makes of an image back to that image */
static void try_transposed(const window *w, int64_t batch) {
    const int64_t *p = w->pads, rows = (w->height + p[0] + p[2] - (w->kh - 1) * w->dh - 1) / w->sh + 1;
    const int64_t columns = (w->width + p[1] + p[3] - (w->kw - 1) * w->dw - 1) / w->sw + 1,
                  in = w->groups * w->channels;
    efl_node nodes[2] = {
        {.op = "dense", .num_inputs = 1, .num_params = 1},
        {"conv_transpose",
         1,
         2,
         11,
         0,
         {1},
         {1, 2},
         {w->sh, w->sw, p[0], p[1], p[2], p[3], w->dh, w->dw, w->groups, w->height, w->width},
         {0}},
    };
    const efl_param params[3] = {
        {{2, {in, in}}, 1}, {{4, {w->kh, w->kw, w->out, in}}, 1}, {{1, {w->out * w->groups}}, 1}};
    const efl_plan plan = {{3, {rows, columns, in}}, 2, 3, nodes, params, "mse", 2, 2, 0, NULL, 0};
    efl_net *net;
    efl_error error;
    require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_OK, error.message);
    use(net, rows * columns * in, 0);
    efl_net_free(net);
    for (int i = 0; i < 11; i++) {
        const int64_t kept = nodes[1].ints[i];
        nodes[1].ints[i] = i & 1 ? INT64_MIN : INT64_MAX;
        require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_MODEL, "absurd window refused");
        nodes[1].ints[i] = kept;
    }
}

/* tokens(time) -> embedding -> recurrent, every step -> attention of its steps to each other -> recurrent, the last
 * step -> dense; with a label at each step where the attention is the last thing. */
static void try_sequence(const char *op, int64_t time, int64_t width, int64_t hidden, int direction, int reset_after,
                         int64_t batch) {
    const int is_lstm = strcmp(op, "lstm") == 0, gates = is_lstm ? 4 : strcmp(op, "gru") == 0 ? 3 : 1;
    const int64_t both = direction == 2 ? 2 : 1, gated = gates * hidden, deep = both * hidden;
    efl_node nodes[7] = {
        {.op = "embedding", .num_inputs = 1, .inputs = {0}, .num_params = 1, .params = {0}},
        {.num_inputs = 1, .inputs = {1}, .num_params = 5 + is_lstm, .params = {1, 2, 3, 4, 10, 11}},
        {.op = "matmul", .num_inputs = 2, .inputs = {2, 2}, .num_ints = 1, .ints = {1}},
        {.op = "softmax", .num_inputs = 1, .inputs = {3}},
        {.op = "matmul", .num_inputs = 2, .inputs = {4, 2}, .num_ints = 1, .ints = {0}},
        {.num_inputs = 1, .inputs = {5}, .num_params = 4, .params = {5, 6, 7, 8}},
        {.op = "dense", .num_inputs = 1, .inputs = {6}, .num_params = 1, .params = {9}},
    };
    for (int layer = 1; layer < 6; layer += 4) {
        efl_node *node = &nodes[layer];
        strcpy(node->op, op);
        node->num_ints = is_lstm ? 3 : 4;
        node->ints[0] = hidden, node->ints[1] = direction, node->ints[2] = layer > 1, node->ints[3] = reset_after;
    }
    const efl_param params[12] = {
        {{2, {5, width}}, 1},
        {{3, {both, width, gated}}, 1},
        {{3, {both, hidden, gated}}, 1},
        {{2, {both, gated}}, 1},
        {{2, {both, gated}}, 1},
        {{3, {both, deep, gated}}, 1},
        {{3, {both, hidden, gated}}, 1},
        {{2, {both, gated}}, 1},
        {{2, {both, gated}}, 1},
        {{2, {deep, 3}}, 1},
        {{2, {both, hidden}}, 1},
        {{2, {both, hidden}}, 1},
    };
    efl_plan plan = {{1, {time}}, 7, 12, nodes, params, "cross_entropy", 7, 7, 0, NULL, 0};
    efl_net *net;
    efl_error error;
    for (int steps = 0; steps < 2; steps++) {
        if (steps) plan.num_nodes = plan.loss_input = plan.output = 5;
        require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_OK, "sequence net");
        use(net, time, 5);
        efl_net_free(net);
    }
    nodes[1].ints[0] = hidden + 1;
    require(efl_net_new(&net, &plan, batch, 0, &error) == EFL_MODEL && net == NULL, "wrong width refused");
}

static void try_sequences(void) {
    static const int64_t sizes[] = {1, 3, 17, 64};
    for (int turn = 0; turn < 12; turn++) {
        const int64_t time = sizes[turn % 3], width = sizes[turn / 4], hidden = sizes[turn % 4];
        try_sequence("lstm", time, width, hidden, turn % 3, 0, 1 + turn % 11);
        try_sequence("gru", time, width, hidden, turn % 3, turn % 2, 1 + turn % 11);
        try_sequence("rnn", time, width, hidden, turn % 3, turn % 2, 1 + turn % 11);
    }
}

/* A node over the input (rows, wide), value 0, and a dense layer of it, value 1; epsilon is 1 for a var below 0. */
typedef struct {
    efl_node node;
    const char *loss;
} op_case;

#define ONE .num_inputs = 1, .inputs = {1}
#define TWO .num_inputs = 2, .inputs = {1, 0}
#define NORM ONE, .num_params = 4, .params = {1, 2, 3, 4}, .num_floats = 2, .floats = {1, 0.9}
static const op_case op_cases[] = {
    {{.op = "dense", ONE, .num_params = 1, .params = {0}, .num_ints = 1, .ints = {1}}, "l1"},
    {{.op = "sub", TWO, .num_ints = 1, .ints = {1}}, "l1"},
    {{.op = "mul", TWO, .num_ints = 1}, "huber"},
    {{.op = "mul", ONE, .num_params = 1, .params = {1}, .num_ints = 1}, "mse"},
    {{.op = "div", ONE, .num_params = 1, .params = {1}, .num_ints = 1}, "mse"},
    {{.op = "add", ONE, .num_params = 1, .params = {1}, .num_ints = 1}, "l1"},
    {{.op = "mask", ONE, .num_ints = 2, .ints = {1, 1}, .num_floats = 1, .floats = {-2}}, "mse"},
    {{.op = "mask", ONE, .num_params = 1, .params = {4}, .num_floats = 1, .floats = {0.1}}, "mse"},
    {{.op = "select", .num_inputs = 3, .inputs = {0, 1, 0}}, "mse"},
    {{.op = "keep", TWO, .num_floats = 1, .floats = {-2}}, "mse"},
    {{.op = "step", ONE, .num_floats = 2, .floats = {1, 0}}, "mse"},
    {{.op = "max", TWO}, "l1"},
    {{.op = "min", ONE, .num_params = 1, .params = {1}}, "mse"},
    {{.op = "reduce_max", ONE, .num_ints = 1, .ints = {0}}, "mse"},
    {{.op = "reduce_min", ONE, .num_ints = 2, .ints = {0, 1}}, "mse"},
    {{.op = "norm", ONE, .num_ints = 1, .ints = {1}}, "mse"},
    {{.op = "log_sum_exp", ONE, .num_ints = 1, .ints = {1}}, "mse"},
    {{.op = "group_norm", ONE, .num_ints = 2, .ints = {1, 1}, .num_floats = 1, .floats = {1e-3}}, "mse"},
    {{.op = "mish", ONE}, "mse"},
    {{.op = "threshold", ONE, .num_floats = 2, .floats = {0.1, 0.2}}, "mse"},
    {{.op = "shrink", ONE, .num_floats = 2, .floats = {0.1, 0.2}}, "mse"},
    {{.op = "sin", ONE}, "mse"},
    {{.op = "cos", ONE}, "mse"},
    {{.op = "mean", ONE, .num_ints = 1, .ints = {0}}, "hinge"},
    {{.op = "mean", ONE, .num_ints = 2, .ints = {0, 1}}, "mse"},
    {{.op = "transpose", ONE, .num_ints = 2, .ints = {1, 0}}, "mse"},
    {{.op = "pad", ONE, .num_ints = 4, .ints = {1, 0, 2, 3}, .num_floats = 1}, "huber"},
    {{.op = "slice", ONE, .num_ints = 3, .ints = {0, 1, 2}}, "focal"},
    {{.op = "concat", TWO, .num_ints = 1, .ints = {1}}, "focal"},
    {{.op = "resize", ONE, .num_ints = 5, .ints = {0, 7, 1, 0, 0}, .num_floats = 1, .floats = {1.7}}, "mse"},
    {{.op = "resize", ONE, .num_ints = 5, .ints = {0, 2, 0, 1, 3}, .num_floats = 1, .floats = {0.4}}, "mse"},
    {{.op = "extend", ONE, .num_ints = 4, .ints = {0, 2, 1, 0}}, "l1"},
    {{.op = "extend", ONE, .num_ints = 4, .ints = {1, 5, 0, 1}}, "l1"},
    {{.op = "stride", ONE, .num_ints = 4, .ints = {0, 2, -2, 2}}, "l1"},
    {{.op = "lrn", ONE, .num_ints = 1, .ints = {4}, .num_floats = 3, .floats = {0.5, 0.75, 1}}, "mse"},
    {{.op = "repeat", ONE, .num_params = 1, .params = {1}}, "mse"},
    {{.op = "leaky_relu", ONE, .num_floats = 1, .floats = {0.1}}, "hinge"},
    {{.op = "clip", ONE, .num_floats = 2, .floats = {-0.1, 0.1}}, "mse"},
    {{.op = "hard_sigmoid", ONE, .num_floats = 2, .floats = {0.2, 0.5}}, "mse"},
    {{.op = "hard_swish", ONE}, "mse"},
    {{.op = "gelu", ONE, .num_ints = 1}, "mse"},
    {{.op = "gelu", ONE, .num_ints = 1, .ints = {1}}, "mse"},
    {{.op = "erf", ONE}, "mse"},
    {{.op = "exp", ONE}, "mse"},
    {{.op = "abs", ONE}, "mse"},
    {{.op = "pow", ONE, .num_floats = 1, .floats = {2}}, "mse"},
    {{.op = "elu", ONE, .num_floats = 1, .floats = {1}}, "mse"},
    {{.op = "softplus", ONE}, "mse"},
    {{.op = "batch_norm", NORM}, "mse"},
    {{.op = "layer_norm", ONE, .num_params = 2, .params = {1, 2}, .num_floats = 1, .floats = {1e-3}}, "mse"},
    {{.op = "dropout", ONE, .num_floats = 1, .floats = {0.3}}, "mse"},
};

/* fuse.c makes the first two a part of it */
static const op_case normed = {{.op = "batch_norm", NORM}, "mse"};
static const efl_node after_norm[] = {
    {.op = "relu", .num_inputs = 1, .inputs = {2}},
    {.op = "clip", .num_inputs = 1, .inputs = {2}, .num_floats = 2, .floats = {-0.1, 0.2}},
    {.op = "tanh", .num_inputs = 1, .inputs = {2}},
};

/* after: a node that follows, or NULL */
static void try_op(const op_case *tried, const efl_node *after, int64_t rows, int64_t wide) {
    const efl_node nodes[3] = {
        {.op = "dense", .num_inputs = 1, .num_params = 1}, tried->node, after == NULL ? tried->node : *after};
    const int count = after == NULL ? 2 : 3;
    const efl_param params[5] = {
        {{2, {wide, wide}}, 1}, {{1, {wide}}, 1}, {{1, {wide}}, 1}, {{1, {wide}}, 0}, {{1, {wide}}, 0}};
    const efl_plan plan = {.input = {2, {rows, wide}},
                           .num_nodes = count,
                           .nodes = nodes,
                           .num_params = 5,
                           .params = params,
                           .loss = tried->loss,
                           .loss_input = count,
                           .output = count};
    efl_net *net;
    efl_error error;
    require(efl_net_new(&net, &plan, SAMPLES, 0, &error) == EFL_OK, error.message);
    use(net, rows * wide, 0);
    efl_net_free(net);
}

static void try_codecs(void) {
    uint8_t payload[4 * 37];
    int64_t acc[37];
    memset(payload, 0xFF, sizeof payload); /* NaN throughout */
    memset(acc, 0x7F, sizeof acc);
    require(isinf(efl_peak_f32(payload, 37)), "NaN is seen");
    for (int fill = 0; fill < 256; fill++) {
        memset(payload, fill, sizeof payload);
        efl_accumulate_f32(acc, payload, INT64_MAX, 37);
        efl_accumulate_f32(acc, payload, -1, 37);
    }
    require(efl_crc32c(0, (const uint8_t *)"123456789", 9) == 0xE3069283u, "crc32c");
    for (int64_t n = 0; n < 37; n++) efl_crc32c(0, payload + 1, n);
}

int main(void) {
    static const int64_t sizes[] = {17, 1, 3, 200};
    static const char *const activations[] = {"relu", "tanh", "sigmoid", "softmax", "log_softmax"};
    static const char *const losses[] = {"cross_entropy", "bce", "mse"};
    efl_error error;
    require(efl_isa_select(getenv("EDGEFL_ISA"), &error) == EFL_OK, "instruction set");
    efl_crc32c_init();
    try_codecs();
    try_sequences();
    int turn = 0;
    for (int i = 0; i < WIDTHS; i++)
        for (int j = 0; j < WIDTHS; j++)
            for (int loss = 0; loss < 3; loss++, turn++)
                try_plan(1 + turn % 3, sizes[i], sizes[j], activations[turn % 5], losses[loss], 1 + turn % 11);
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i += WINDOWS, turn++) {
        try_windows(&windows[i], turn & 1, 1 + turn % 11);
        try_transposed(&windows[i], 1 + turn % 11);
        if (windows[i].channels * windows[i].times > 1) try_parts(&windows[i], 1 + turn % 11);
    }
    for (size_t i = 0; i < sizeof op_cases / sizeof *op_cases; i++)
        for (int j = 0; j < WIDTHS; j++, turn++) try_op(&op_cases[i], NULL, 3 + j, sizes[j]);
    for (size_t i = 0; i < sizeof after_norm / sizeof *after_norm; i++)
        for (int j = 0; j < WIDTHS; j++, turn++) try_op(&normed, &after_norm[i], 3 + j, sizes[j]);
    printf("%s: %d plans, nothing found\n", efl_isa(), turn);
    return 0;
}
