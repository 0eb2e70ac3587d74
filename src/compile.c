/* compile.c: from a plan to a net. Every number of the plan is checked before it is used.
 *
 * Design:
 *   a) check and infer: indices, op names, arities, shapes, sizes, in that order, node by node.
 *   b) mark: what the loss and what the output depend on; which values need a gradient.
 *   c) share: an activation overwrites its input if nothing else reads it; flatten is another name for its input.
 *   d) fuse: see fuse.c.
 *   e) decide what a step keeps for its backward pass, and lay out: see recompute.c and arena.c.
 */
#include "net.h"
#include "ops/bits.h"
#include "threads.h"

#include <stdlib.h>
#include <string.h>

#define LARGEST_MODEL ((int64_t)1 << 33) /* params */

static int check_sizes(const efl_plan *plan, int64_t batch, efl_error *error) {
    int64_t total = 0;
    if (plan->num_nodes < 1 || plan->num_nodes > 1 << 12 || plan->num_params < 0 || plan->num_params > 1 << 16)
        return efl_fail(error, EFL_MODEL, "plan: too many or no nodes or params; " EFL_PLAN_HINT);
    if (batch < 1 || batch > 1 << 24) return efl_fail(error, EFL_USAGE, "batch %lld: use 1 to 2^24", (long long)batch);
    for (int i = 0; i <= plan->num_params; i++) {
        const efl_shape *shape = i ? &plan->params[i - 1].shape : &plan->input;
        if (shape->ndim < 0 || shape->ndim > EFL_MAX_DIMS || efl_shape_size(shape) < 0)
            return efl_fail(error, EFL_MODEL, "plan: the shape of %s %d is empty or too large; " EFL_PLAN_HINT,
                            i ? "param" : "input", i ? i - 1 : 0);
    }
    for (int i = 0; i < plan->num_params; i++) total += efl_shape_size(&plan->params[i].shape);
    if (total > LARGEST_MODEL)
        return efl_fail(error, EFL_MEMORY, "plan: no memory can hold %lld params: use a smaller model",
                        (long long)total);
    for (int i = 1; i < plan->num_params; i++)
        if (plan->params[i].trainable && !plan->params[i - 1].trainable)
            return efl_fail(error, EFL_MODEL, "plan: param %d is trained but follows state; " EFL_PLAN_HINT, i);
    if (plan->num_losses < 0 || plan->num_losses == 1 || plan->num_losses > EFL_MAX_LOSSES)
        return efl_fail(error, EFL_MODEL, "plan: %d losses, 2 to 8 are known; " EFL_PLAN_HINT, plan->num_losses);
    int ends = plan->output >= 1 && plan->output <= plan->num_nodes;
    for (int h = 0; h < (plan->num_losses ? plan->num_losses : 1); h++) {
        const int input = plan->num_losses ? plan->losses[h].input : plan->loss_input;
        ends &= input >= 1 && input <= plan->num_nodes;
    }
    if (!ends) return efl_fail(error, EFL_MODEL, "plan: the loss or the output is no node's value; " EFL_PLAN_HINT);
    return EFL_OK;
}

static int copy_params(efl_net *net, const efl_plan *plan) {
    net->num_tensors = plan->num_params;
    net->offsets = calloc((size_t)plan->num_params + 1, sizeof *net->offsets);
    net->owners = calloc((size_t)plan->num_params + 1, sizeof *net->owners);
    if (net->offsets == NULL || net->owners == NULL) return 0;
    for (int i = 0; i < plan->num_params; i++) {
        net->offsets[i + 1] = net->offsets[i] + efl_shape_size(&plan->params[i].shape);
        net->num_trainable += plan->params[i].trainable != 0;
    }
    return 1;
}

/* The message continues "node 3 (dense): ". */
static int infer_node(efl_net *net, const efl_plan *plan, int i, efl_error *error) {
    efl_step *step = &net->steps[i];
    const efl_node *node = &step->node;
    step->op = efl_op_find(node->op);
    if (step->op == NULL) return efl_fail(error, EFL_MODEL, "no such op in this build");
    if (node->num_inputs < step->op->min_inputs || node->num_inputs > step->op->max_inputs ||
        node->num_params < step->op->min_params || node->num_params > step->op->max_params ||
        (step->op->num_ints >= 0 && node->num_ints != step->op->num_ints) ||
        (step->op->num_floats >= 0 && node->num_floats != step->op->num_floats))
        return efl_fail(error, EFL_MODEL, "wrong number of inputs, params or attributes");
    step->shapes.node = node;
    for (int k = 0; k < node->num_inputs; k++) {
        if (node->inputs[k] < 0 || node->inputs[k] > i)
            return efl_fail(error, EFL_MODEL, "reads value %d, which does not exist yet", node->inputs[k]);
        step->shapes.x[k] = net->values[node->inputs[k]].shape;
    }
    for (int k = 0; k < node->num_params; k++) {
        if (node->params[k] < 0 || node->params[k] >= plan->num_params)
            return efl_fail(error, EFL_MODEL, "owns param %d, which does not exist", node->params[k]);
        step->shapes.w[k] = plan->params[node->params[k]].shape;
        net->shares_params |= net->owners[node->params[k]]++ > 0 && node->params[k] < net->num_trainable;
    }
    if (step->op->infer(&step->shapes, error) != EFL_OK) return error->code;
    net->values[i + 1].shape = step->shapes.y;
    net->values[i + 1].size = efl_shape_size(&step->shapes.y);
    if (net->values[i + 1].size < 0) return efl_fail(error, EFL_MODEL, "makes a value that is too large");
    return EFL_OK;
}

/* Columns of the net's input, all of which a value holds unchanged and nothing else; count 0: it is computed. */
typedef struct {
    int64_t from, count;
} efl_columns;

/* Of a slice that takes neighbours in memory: those. Of a slice across an inner axis and of a transpose: all that its
 * input holds, which is more than it needs. */
static efl_columns columns_of(const efl_step *step, efl_columns first) {
    const efl_shape *x = &step->shapes.x[0];
    if (step->op->flags & EFL_ALIAS) return first;
    if (efl_op_is(step->op, "transpose")) return first;
    if (!efl_op_is(step->op, "slice")) return (efl_columns){0, 0};
    const int64_t axis = step->node.ints[0];
    for (int i = 0; i < axis; i++)
        if (x->dim[i] != 1) return first;
    if (first.count != efl_shape_size(x)) return first;
    const int64_t inner = first.count / x->dim[axis];
    return (efl_columns){first.from + step->node.ints[1] * inner, step->node.ints[2] * inner};
}

/* Tokens must come from the input unchanged, because efl_fit, efl_predict and the others check them there. */
static int find_tokens(efl_net *net, efl_error *error) {
    efl_columns *held = calloc((size_t)net->num_values, sizeof *held);
    if (held == NULL) return efl_fail(error, EFL_MEMORY, "no memory to compile the plan: free some");
    held[0] = (efl_columns){0, net->values[0].size};
    int code = EFL_OK;
    for (int v = 1; v < net->num_values && code == EFL_OK; v++) {
        efl_step *step = &net->steps[v - 1];
        const efl_columns first = held[step->node.inputs[0]];
        held[v] = first.count ? columns_of(step, first) : first;
        if (!(step->op->flags & EFL_TAKES_TOKENS)) continue;
        step->token_from = first.from;
        step->token_count = first.count;
        if (first.count == 0)
            code = efl_fail(error, EFL_MODEL, "plan: node %d (%s): reads tokens that are computed; " EFL_PLAN_HINT,
                            v - 1, step->node.op);
    }
    free(held);
    return code;
}

static int infer(efl_net *net, const efl_plan *plan, efl_error *error) {
    net->values[0].shape = plan->input;
    net->values[0].size = efl_shape_size(&plan->input);
    for (int i = 0; i < plan->num_nodes; i++) {
        efl_error reason;
        net->steps[i].node = plan->nodes[i];
        net->steps[i].node.op[sizeof net->steps[i].node.op - 1] = '\0';
        if (infer_node(net, plan, i, &reason) != EFL_OK)
            return efl_fail(error, EFL_MODEL, "plan: node %d (%s): %.100s; " EFL_PLAN_HINT, i, net->steps[i].node.op,
                            reason.message);
    }
    if (efl_heads_make(net, plan, error) != EFL_OK) return error->code;
    return find_tokens(net, error);
}

/* A node whose weight is frozen, or not on the way from a trained one, need not keep x. */
static int flags_of(const efl_net *net, const efl_step *step) {
    const efl_node *node = &step->node;
    const int idle = step->op->flags & EFL_X_FOR_W && node->num_inputs == 1 && node->num_params > 0 &&
                     node->params[0] >= net->num_trainable;
    const int flags = step->op->flags & ~(idle ? EFL_READS_X : 0);
    return flags & ~(flags & EFL_READS_X ? EFL_IN_PLACE : 0);
}

static void mark(efl_net *net) {
    for (int h = 0; h < net->num_heads; h++) net->steps[net->heads[h].input - 1].trains = 1;
    for (int i = net->num_steps - 1; i >= 0; i--) {
        net->steps[i].predicts |= i + 1 == net->output;
        for (int k = 0; k < net->steps[i].node.num_inputs; k++) {
            const int input = net->steps[i].node.inputs[k];
            if (input == 0) continue;
            net->steps[input - 1].trains |= net->steps[i].trains;
            net->steps[input - 1].predicts |= net->steps[i].predicts;
        }
    }
    for (int i = 0; i < net->num_steps; i++) {
        const efl_node *node = &net->steps[i].node;
        int wanted = 0;
        net->steps[i].flags = flags_of(net, &net->steps[i]);
        for (int k = 0; k < node->num_params; k++) wanted |= node->params[k] < net->num_trainable;
        for (int k = 0; k < node->num_inputs; k++) wanted |= net->values[node->inputs[k]].has_gradient;
        net->steps[i].backward = net->values[i + 1].has_gradient = wanted && net->steps[i].trains;
        net->mixes_samples |= net->steps[i].trains && net->steps[i].op->flags & EFL_MIXES_SAMPLES;
    }
}

/* A node that reads an alias reads the memory of the aliased value. */
static void count_readers(efl_net *net) {
    for (int v = 0; v < net->num_values; v++) {
        const efl_step *step = v ? &net->steps[v - 1] : NULL;
        const int alias = step != NULL && step->op->flags & EFL_ALIAS;
        net->values[v].storage = alias ? net->values[step->node.inputs[0]].storage : v;
        if (step == NULL || alias) continue;
        for (int k = 0; k < step->node.num_inputs; k++)
            net->values[net->values[step->node.inputs[k]].storage].readers++;
    }
}

/* A bit an element is kept where backward needs no more of y, and no other node's backward reads y. */
static void keep_bits(efl_net *net) {
    for (int i = 0; i < net->num_steps; i++) {
        efl_step *step = &net->steps[i];
        int read = !step->backward || !(step->flags & EFL_BITS);
        for (int j = i + 1; j < net->num_steps && !read; j++)
            for (int k = 0; k < net->steps[j].node.num_inputs; k++)
                read |= net->steps[j].backward && net->steps[j].flags & EFL_READS_X &&
                        net->values[net->steps[j].node.inputs[k]].storage == i + 1;
        step->flags &= ~(read ? EFL_BITS : EFL_READS_Y);
        if (!read) step->shapes.saved.per_sample = efl_bits_room(net->values[i + 1].size);
    }
}

/* An alias of an overwritten value moves with it, so storages are found again, in the order of the nodes. The values
 * that the one loss and the output read need no pin, because no run continues past them. Of several losses, one may
 * read what another is computed from: each counts as a reader. */
static void share(efl_net *net) {
    count_readers(net);
    keep_bits(net);
    for (int h = 0; net->num_heads > 1 && h < net->num_heads; h++) efl_memory(net, net->heads[h].input)->readers++;
    for (int v = 1; v < net->num_values; v++) {
        const efl_step *step = &net->steps[v - 1];
        const int owner = net->values[step->node.inputs[0]].storage;
        efl_value *memory = &net->values[owner];
        if (step->op->flags & EFL_ALIAS) {
            net->values[v].storage = owner;
        } else if (step->flags & EFL_IN_PLACE && memory->readers == 1 && !memory->pinned &&
                   memory->size == net->values[v].size && memory->has_gradient == net->values[v].has_gradient) {
            memory->readers = net->values[v].readers;
            memory->pinned = net->values[v].pinned;
            net->values[v].storage = owner;
        }
        if (step->flags & EFL_READS_Y) net->values[net->values[v].storage].pinned = 1;
    }
}

static int compile(efl_net *net, const efl_plan *plan, efl_error *error) {
    net->num_steps = plan->num_nodes;
    net->num_values = plan->num_nodes + 1;
    net->output = plan->output;
    net->steps = calloc((size_t)net->num_steps, sizeof *net->steps);
    net->values = calloc((size_t)net->num_values, sizeof *net->values);
    net->turns = calloc(2 * (size_t)net->num_steps, sizeof *net->turns);
    if (net->steps == NULL || net->values == NULL || net->turns == NULL || !copy_params(net, plan))
        return efl_fail(error, EFL_MEMORY, "no memory to compile the plan: free some");
    if (infer(net, plan, error) != EFL_OK) return error->code;
    mark(net);
    share(net);
    if (!plan->apart) efl_fuse(net);
    return efl_heads_apart(net, error);
}

/* A net without an arena. */
static int compiled(efl_net **result, const efl_plan *plan, int64_t batch, efl_error *error) {
    *result = NULL;
    if (check_sizes(plan, batch, error) != EFL_OK) return error->code;
    efl_net *net = calloc(1, sizeof *net);
    if (net == NULL) return efl_fail(error, EFL_MEMORY, "no memory to compile the plan: free some");
    net->batch = batch;
    if (compile(net, plan, error) != EFL_OK) {
        efl_net_free(net);
        return error->code;
    }
    *result = net;
    return EFL_OK;
}

int efl_net_new(efl_net **result, const efl_plan *plan, int64_t batch, int64_t max_arena_bytes, efl_error *error) {
    if (compiled(result, plan, batch, error) != EFL_OK) return error->code;
    efl_needs needs;
    if (efl_recompute(*result, max_arena_bytes, &needs, error) == EFL_OK &&
        efl_arena_make(*result, max_arena_bytes, error) == EFL_OK)
        return EFL_OK;
    efl_net_free(*result);
    *result = NULL;
    return error->code;
}

int efl_plan_needs(const efl_plan *plan, int64_t batch, efl_needs *needs, efl_error *error) {
    efl_net *net;
    if (compiled(&net, plan, batch, error) != EFL_OK) return error->code;
    const int code = efl_recompute(net, 1, needs, error);
    needs->mixes_samples = net->mixes_samples;
    efl_net_free(net);
    return code;
}

int efl_plan_flops(const efl_plan *plan, double *flops, efl_error *error) {
    efl_net *net;
    if (compiled(&net, plan, 1, error) != EFL_OK) return error->code;
    *flops = 0;
    for (int i = 0; i < net->num_steps; i++)
        if (net->steps[i].trains) *flops += (double)net->steps[i].shapes.flops;
    efl_net_free(net);
    return EFL_OK;
}

void efl_net_free(efl_net *net) {
    if (net == NULL) return;
    efl_pool_free(net->pool);
    free(net->rooms);
    free(net->arena);
    free(net->steps);
    free(net->values);
    free(net->turns);
    free(net->offsets);
    free(net->owners);
    free(net);
}
