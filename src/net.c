/* net.c: runs a compiled net: forward, backward, epochs of SGD.
 *
 * A batch larger than the arena goes through in pieces, whose gradients add up to that of the whole mean. The
 * gradient of all trained params is one vector (T), so that clipping and the update are single loops.
 */
#include "net.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t efl_net_arena_bytes(const efl_net *net) {
    return net->arena_bytes;
}

int64_t efl_net_num_params(const efl_net *net) {
    return net->offsets[net->num_tensors];
}

int64_t efl_net_target_size(const efl_net *net) {
    return net->loss->takes_labels ? 0 : net->values[net->loss_input].size;
}

int efl_net_num_values(const efl_net *net) {
    return net->num_values;
}

const efl_shape *efl_net_shape(const efl_net *net, int value) {
    return &net->values[value].shape;
}

int64_t efl_net_size(const efl_net *net, int value) {
    return net->values[value].size;
}

int64_t efl_net_flops(const efl_net *net, int node) {
    return net->steps[node].shapes.flops;
}

int efl_net_output(const efl_net *net) {
    return net->output;
}

void efl_net_cancel(efl_net *net) {
    atomic_store(&net->cancelled, 1);
}

static efl_value *memory_of(efl_net *net, int value) {
    return &net->values[net->values[value].storage];
}

static efl_op_run run_of(efl_net *net, const efl_step *step, int64_t batch) {
    const int value = (int)(step - net->steps) + 1;
    efl_op_run run = {.shapes = &step->shapes, .batch = batch, .y = memory_of(net, value)->data};
    run.dy = memory_of(net, value)->gradient;
    for (int k = 0; k < step->node.num_inputs; k++) run.x[k] = memory_of(net, step->node.inputs[k])->data;
    for (int k = 0; k < step->node.num_params; k++) {
        const int tensor = step->node.params[k];
        run.w[k] = net->params + net->offsets[tensor];
        run.dw[k] = tensor < net->num_trainable ? net->g + net->offsets[tensor] : NULL;
    }
    return run;
}

static void forward(efl_net *net, int64_t batch, int training) {
    for (int i = 0; i < net->num_steps; i++) {
        const efl_step *step = &net->steps[i];
        if (step->op->flags & EFL_ALIAS || !(training ? step->trains : step->predicts)) continue;
        const efl_op_run run = run_of(net, step, batch);
        step->op->forward(&run);
    }
}

/* The first contribution to a value's gradient is written in place, the others through `spare`. */
static void backward_step(efl_net *net, const efl_step *step, int64_t batch) {
    efl_op_run run = run_of(net, step, batch);
    float *spare = net->spare, *further[EFL_MAX_INPUTS] = {NULL};
    for (int k = 0; k < step->node.num_inputs; k++) {
        efl_value *memory = memory_of(net, step->node.inputs[k]);
        if (!net->values[step->node.inputs[k]].has_gradient) continue;
        run.dx[k] = memory->gradient;
        if (memory->written && memory->gradient != run.dy) {
            run.dx[k] = further[k] = spare;
            spare += batch * net->values[step->node.inputs[k]].size;
        }
        memory->written = 1;
    }
    step->op->backward(&run);
    for (int k = 0; k < step->node.num_inputs; k++) {
        if (further[k] == NULL) continue;
        const int input = step->node.inputs[k];
        efl_kernels->add(memory_of(net, input)->gradient, further[k], batch * net->values[input].size);
    }
}

static void backward(efl_net *net, int64_t batch) {
    for (int v = 0; v < net->num_values; v++) net->values[v].written = v == net->values[net->loss_input].storage;
    for (int i = net->num_steps - 1; i >= 0; i--) {
        const efl_step *step = &net->steps[i];
        if (net->values[i + 1].has_gradient && !(step->op->flags & EFL_ALIAS)) backward_step(net, step, batch);
    }
}

/* Copies samples order[0..batch) of the data, or the first ones if order is NULL, to where the net reads them. */
static void gather(efl_net *net, const efl_data *data, const uint32_t *order, int64_t first, int64_t batch) {
    const int64_t in = net->values[0].size, out = efl_net_target_size(net);
    for (int64_t i = 0; i < batch; i++) {
        const int64_t sample = order == NULL ? first + i : order[first + i];
        memcpy(net->values[0].data + i * in, data->x + sample * in, (size_t)in * sizeof(float));
        if (net->loss->takes_labels)
            net->labels[i] = data->labels[sample];
        else
            memcpy(net->targets + i * out, data->targets + sample * out, (size_t)out * sizeof(float));
    }
}

/* What the loss is divided by to be the mean over n samples. */
static double loss_count(const efl_net *net, int64_t n) {
    return (double)n * (double)(net->loss->takes_labels ? 1 : efl_net_target_size(net));
}

/* The summed loss of n samples from `first`; with_gradient: g(T) becomes the gradient of their mean loss. */
static double run_batch(efl_net *net, const efl_data *data, const uint32_t *order, int64_t first, int64_t n,
                        int with_gradient, int64_t *correct) {
    efl_value *logits = memory_of(net, net->loss_input);
    double loss = 0;
    if (with_gradient) memset(net->g, 0, (size_t)efl_num_trained(net) * sizeof *net->g);
    for (int64_t done = 0; done < n; done += net->batch) {
        efl_loss_run run = {.batch = n - done < net->batch ? n - done : net->batch,
                            .size = net->values[net->loss_input].size,
                            .logits = logits->data,
                            .labels = net->labels,
                            .targets = net->targets,
                            .dlogits = with_gradient ? logits->gradient : NULL,
                            .scale = (float)(1 / loss_count(net, n))};
        gather(net, data, order, first + done, run.batch);
        forward(net, run.batch, 1);
        loss += net->loss->run(&run);
        *correct += run.correct;
        if (with_gradient) backward(net, run.batch);
    }
    return loss;
}

static int check_labels(const efl_net *net, const efl_data *data, efl_error *error) {
    const int64_t classes = net->values[net->loss_input].size;
    for (int64_t i = 0; net->loss->takes_labels && i < data->n; i++)
        if (data->labels[i] < 0 || data->labels[i] >= classes)
            return efl_fail(error, EFL_DATA,
                            "label %lld of sample %lld is out of range 0..%lld: map the labels to the model's classes",
                            (long long)data->labels[i], (long long)i, (long long)classes - 1);
    return EFL_OK;
}

/* One step on samples first..first+n of the epoch's order; returns their summed loss. */
static double fit_step(efl_net *net, const float *global, const efl_data *data, const uint32_t *order,
                       int64_t first, int64_t n, const efl_fit_options *o) {
    int64_t correct = 0;
    const int64_t trained = efl_num_trained(net);
    const double loss = run_batch(net, data, order, first, n, 1, &correct);
    efl_sgd sgd = {.lr = (float)o->lr,
                   .momentum = (float)o->momentum,
                   .weight_decay = (float)o->weight_decay,
                   .prox_mu = (float)o->prox_mu,
                   .grad_scale = 1};
    if (o->clip_norm > 0) {
        const double norm = sqrt(efl_kernels->sum_squares(net->g, trained));
        if (norm > o->clip_norm) sgd.grad_scale = (float)(o->clip_norm / norm);
    }
    efl_kernels->sgd_step(net->w, o->momentum != 0 ? net->v : NULL, net->g, global, &sgd, trained);
    return loss;
}

static int fit_epochs(efl_net *net, const float *global, const efl_data *data, uint32_t *order,
                      const efl_fit_options *o, efl_fit_result *result, efl_error *error) {
    for (int64_t epoch = 0; epoch < o->epochs; epoch++) {
        double loss = 0;
        if (order != NULL) efl_permutation(order, data->n, o->seed, (uint64_t)epoch);
        for (int64_t first = 0; first < data->n;) {
            if (atomic_load(&net->cancelled)) return efl_fail(error, EFL_CANCELLED, "training was cancelled");
            if (o->max_steps > 0 && result->steps == o->max_steps) return EFL_OK;
            const int64_t left = data->n - first, n = left < o->batch_size ? left : o->batch_size;
            loss += fit_step(net, global, data, order, first, n, o);
            first += n;
            result->steps++;
            result->loss = loss / loss_count(net, first);
        }
    }
    return EFL_OK;
}

int efl_fit(efl_net *net, const float *params, const efl_data *data, const efl_fit_options *options,
            float *delta, efl_fit_result *result, efl_error *error) {
    uint32_t *order = NULL;
    atomic_store(&net->cancelled, 0);
    *result = (efl_fit_result){0};
    if (check_labels(net, data, error) != EFL_OK) return error->code;
    if (options->batch_size < data->n) {
        order = data->n <= UINT32_MAX ? malloc((size_t)data->n * sizeof *order) : NULL;
        if (order == NULL) return efl_fail(error, EFL_MEMORY, "no memory to shuffle the data: use fewer samples");
    }
    memcpy(net->w, params, (size_t)efl_net_num_params(net) * sizeof *params);
    memset(net->v, 0, options->momentum != 0 ? (size_t)efl_num_trained(net) * sizeof *net->v : 0);
    net->params = net->w;
    const int code = fit_epochs(net, params, data, order, options, result, error);
    free(order);
    if (code == EFL_OK) efl_delta(delta, net->w, params, efl_net_num_params(net));
    return code;
}

int efl_gradient(efl_net *net, const float *params, const efl_data *data, float *gradient, efl_error *error) {
    int64_t correct = 0;
    if (check_labels(net, data, error) != EFL_OK) return error->code;
    net->params = params;
    run_batch(net, data, NULL, 0, data->n, 1, &correct);
    memset(gradient, 0, (size_t)efl_net_num_params(net) * sizeof *gradient);
    memcpy(gradient, net->g, (size_t)efl_num_trained(net) * sizeof *gradient);
    return EFL_OK;
}

int efl_evaluate(efl_net *net, const float *params, const efl_data *data, double *loss, double *accuracy,
                 efl_error *error) {
    int64_t correct = 0;
    if (check_labels(net, data, error) != EFL_OK) return error->code;
    net->params = params;
    *loss = run_batch(net, data, NULL, 0, data->n, 0, &correct) / loss_count(net, data->n);
    *accuracy = net->loss->has_accuracy ? (double)correct / loss_count(net, data->n) : -1;
    return EFL_OK;
}

void efl_predict(efl_net *net, const float *params, const float *x, int64_t n, float *out) {
    const int64_t in = net->values[0].size, size = net->values[net->output].size;
    net->params = params;
    for (int64_t done = 0; done < n; done += net->batch) {
        const int64_t batch = n - done < net->batch ? n - done : net->batch;
        memcpy(net->values[0].data, x + done * in, (size_t)(batch * in) * sizeof *x);
        forward(net, batch, 0);
        memcpy(out + done * size, memory_of(net, net->output)->data, (size_t)(batch * size) * sizeof *out);
    }
}
