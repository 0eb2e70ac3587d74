/* run.c: one batch through a compiled net, forward and backward. */
#include "net.h"
#include "ops/parts.h"

#include <string.h>

int efl_fuses(const efl_net *net, const efl_step *step, const efl_training *training) {
    return training->sgd != NULL && step->op->flags & EFL_FUSES && step->node.num_params > 0 &&
           step->node.params[0] < net->num_trainable;
}

/* Each node draws from a stream of its own in each step. */
static uint64_t node_seed(uint64_t seed, int node) {
    return seed == 0 ? 0 : (seed + (uint64_t)node + 1) * 0x9E3779B97F4A7C15u | 1;
}

/* `late`: the turn of the backward pass, or NULL. */
static efl_op_run run_of(efl_net *net, const efl_step *step, int64_t batch, const efl_training *training,
                         const efl_turn *late) {
    const int node = (int)(step - net->steps);
    const efl_value *made = efl_memory(net, node + 1);
    efl_op_run run = {.shapes = &step->shapes,
                      .batch = batch,
                      .training = training != NULL,
                      .seed = training == NULL ? 0 : node_seed(training->seed, node),
                      .first = training == NULL ? 0 : training->first,
                      .y = late ? made->late : made->data,
                      .dy = made->gradient,
                      .saved = late ? step->late_saved : step->saved,
                      .scratch = late ? late->scratch : step->scratch,
                      .clamp = step->clamps ? &step->clamp : NULL,
                      .stop = &net->cancelled,
                      .pool = net->pool,
                      .rooms = net->rooms,
                      .room = net->room};
    for (int k = 0; k < step->node.num_inputs; k++) {
        const efl_value *value = efl_memory(net, step->node.inputs[k]);
        run.x[k] = late ? value->late : value->data;
    }
    if (step->flags & EFL_BITS && training != NULL) run.bits = (uint32_t *)run.saved;
    for (int k = 0; k < step->node.num_params; k++) {
        const int tensor = step->node.params[k];
        run.w[k] = net->params + net->offsets[tensor];
        if (training != NULL && training->w != NULL && tensor >= net->num_trainable)
            run.state[k] = training->w + net->offsets[tensor];
    }
    return run;
}

void efl_forward(efl_net *net, int64_t batch, int for_loss, const efl_training *training) {
    for (int i = 0; i < net->num_steps && !efl_is_cancelled(net); i++) {
        const efl_step *step = &net->steps[i];
        if (step->op->flags & EFL_ALIAS || !(for_loss ? step->trains : step->predicts)) continue;
        const efl_op_run run = run_of(net, step, batch, training, NULL);
        efl_forward_in_parts(step->op, &run);
    }
}

/* Points the node's dw into the whole gradient, or into `transient`, one after another. */
static void give_gradients(const efl_net *net, const efl_step *step, const efl_training *training, efl_op_run *run) {
    float *next = training->transient;
    for (int k = 0; k < step->node.num_params; k++) {
        const int tensor = step->node.params[k];
        if (tensor >= net->num_trainable || (k == 0 && run->update != NULL)) continue;
        if (training->gradient != NULL) {
            run->dw[k] = training->gradient + net->offsets[tensor];
            continue;
        }
        const int64_t size = net->offsets[tensor + 1] - net->offsets[tensor];
        run->dw[k] = memset(next, 0, (size_t)size * sizeof *next);
        next += size;
    }
}

static void update_params(const efl_net *net, const efl_step *step, const efl_training *training,
                          const efl_op_run *run) {
    for (int k = 0; k < step->node.num_params; k++) {
        if (run->dw[k] == NULL) continue;
        const int64_t start = net->offsets[step->node.params[k]];
        efl_kernels->sgd_step(training->w + start, training->v == NULL ? NULL : training->v + start,
                              training->s == NULL ? NULL : training->s + start, run->dw[k], training->w0 + start,
                              training->c == NULL ? NULL : training->c + start, training->sgd,
                              net->offsets[step->node.params[k] + 1] - start);
    }
}

/* The first contribution to a value's gradient is written in place; further ones are written to `spare` and added. */
static void backward_step(efl_net *net, const efl_turn *turn, int64_t batch, const efl_training *training) {
    const efl_step *step = &net->steps[turn->step];
    efl_op_run run = run_of(net, step, batch, training, turn);
    float *spare = net->spare, *further[EFL_MAX_INPUTS] = {NULL};
    for (int k = 0; k < step->node.num_inputs; k++) {
        efl_value *memory = efl_memory(net, step->node.inputs[k]);
        if (!net->values[step->node.inputs[k]].has_gradient) continue;
        run.dx[k] = memory->gradient;
        if (memory->written && memory->gradient != run.dy) {
            run.dx[k] = further[k] = spare;
            spare += batch * net->values[step->node.inputs[k]].size;
        }
        memory->written = 1;
    }
    efl_update update = {.sgd = training->sgd};
    if (efl_fuses(net, step, training)) {
        const int64_t start = net->offsets[step->node.params[0]];
        update.w = training->w + start;
        update.v = training->v == NULL ? NULL : training->v + start;
        update.s = training->s == NULL ? NULL : training->s + start;
        update.w0 = training->w0 + start;
        update.c = training->c == NULL ? NULL : training->c + start;
        run.update = &update;
    }
    give_gradients(net, step, training, &run);
    efl_backward_in_parts(step->op, &run);
    if (training->sgd != NULL) update_params(net, step, training, &run);
    for (int k = 0; k < step->node.num_inputs; k++) {
        if (further[k] == NULL) continue;
        const int input = step->node.inputs[k];
        efl_kernels->add(efl_memory(net, input)->gradient, further[k], batch * net->values[input].size);
    }
}

static void forward_again(efl_net *net, const efl_turn *turn, int64_t batch, const efl_training *training) {
    efl_op_run run = run_of(net, &net->steps[turn->step], batch, training, turn);
    memset(run.state, 0, sizeof run.state); /* it has moved already */
    run.again = 1;
    efl_forward_in_parts(net->steps[turn->step].op, &run);
}

void efl_backward(efl_net *net, int64_t batch, const efl_training *training) {
    for (int v = 0; v < net->num_values; v++) net->values[v].written = 0;
    for (int h = 0; h < net->num_heads; h++) efl_memory(net, net->heads[h].input)->written = 1;
    for (int t = 0; t < net->num_turns && !efl_is_cancelled(net); t++) {
        if (net->turns[t].again)
            forward_again(net, &net->turns[t], batch, training);
        else
            backward_step(net, &net->turns[t], batch, training);
    }
}
