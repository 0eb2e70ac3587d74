/* recompute.c: what a step keeps for its backward pass, and what it computes again there to fit into less memory.
 *
 * Design:
 *   a) A dropped value lives twice: in the forward pass until its last reader, and in the backward pass from where
 *      it is computed again to its last reader there. Its nodes' forward runs once more, on the same numbers, so every
 *      bit is the same: batch statistics are those that were saved, running ones are left alone (run.state is NULL),
 *      dropout draws from the same seed, and a node's params move in its own backward, which comes later.
 *   b) A plan of what to drop is tried by laying out its arena (arena.c). The plan that computes the fewest FLOPs again
 *      is taken, of those that fit. Everything follows from shapes alone, so all devices with the same limit agree.
 *   c) Two families are tried. Cheap: what batch norm and functions of one number make is dropped where their inputs
 *      are kept anyway. Segments (Chen et al. 2016, arXiv:1604.06174): the net is cut where little is alive, what
 *      crosses a cut is kept, and of all segments but the last nothing else is.
 */
#include "net.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHEAP = 8,   /* FLOPs an element, at most: batch norm, pointwise functions, small pools */
    HALVES = 6,  /* cheap plans: from the largest values alone down to all */
    CUTS = 16,   /* segment plans: each with segments of 3/4 of the one before */
    PLANS = HALVES + CUTS,
};

typedef struct {
    efl_net *net;
    int first;                  /* step with a backward: nothing before it is dropped */
    int *last_reader;           /* (V) position of the last step that reads a storage in the forward pass */
    int *from;                  /* (V) where the segment that ends here begins */
    int64_t *made, *crossing;   /* (V) elements made up to a position; alive across it */
    int64_t *cost;              /* (V) kept by the best cuts up to a position */
    char *late;                 /* (V) backward reads the storage */
    char *present, *wanted;     /* (V) of the schedule */
    char *again;                /* (V) steps, of the schedule */
    int64_t largest;            /* cheap storage */
} search;

static int is_idle(const efl_step *step) {
    return step->op->flags & EFL_ALIAS || !step->trains;
}

static int has_backward(const efl_step *step) {
    return step->backward && !(step->op->flags & EFL_ALIAS);
}

/* Calls for the storages that a step's backward reads. */
static int want(const search *s, const efl_step *step, char *wanted) {
    const efl_net *net = s->net;
    int missing = 0;
    if (step->flags & EFL_READS_Y) {
        const int made = net->values[step - net->steps + 1].storage;
        wanted[made] = 1;
        missing |= !s->present[made];
    }
    for (int k = 0; step->flags & EFL_READS_X && k < step->node.num_inputs; k++) {
        const int owner = net->values[step->node.inputs[k]].storage;
        wanted[owner] = 1;
        missing |= !s->present[owner];
    }
    return missing;
}

/* Adds the turns that make what is wanted and missing, and in turn what they read. */
static void make_again(search *s, int before) {
    efl_net *net = s->net;
    memset(s->again, 0, (size_t)net->num_values);
    for (int i = before; i >= 0; i--) {
        const efl_step *step = &net->steps[i];
        const int made = net->values[i + 1].storage;
        if (is_idle(step) || !s->wanted[made] || s->present[made]) continue;
        s->again[i] = 1;
        for (int k = 0; k < step->node.num_inputs; k++) s->wanted[net->values[step->node.inputs[k]].storage] = 1;
    }
    for (int i = 0; i <= before; i++) {
        if (!s->again[i]) continue;
        s->present[net->values[i + 1].storage] = 1;
        net->turns[net->num_turns++] = (efl_turn){.step = i, .again = 1};
    }
}

/* The backward pass of a net whose values are marked as dropped or not. Every step is computed again once at most. */
static void schedule(search *s) {
    efl_net *net = s->net;
    net->num_turns = 0;
    for (int v = 0; v < net->num_values; v++) s->present[v] = !net->values[v].dropped;
    for (int i = net->num_steps - 1; i >= 0; i--) {
        if (!has_backward(&net->steps[i])) continue;
        memset(s->wanted, 0, (size_t)net->num_values);
        if (want(s, &net->steps[i], s->wanted)) make_again(s, i);
        net->turns[net->num_turns++] = (efl_turn){.step = i};
    }
}

static void trace(search *s) {
    efl_net *net = s->net;
    s->first = net->num_steps;
    memset(s->present, 1, (size_t)net->num_values);
    for (int i = net->num_steps - 1; i >= 0; i--) {
        const efl_step *step = &net->steps[i];
        if (is_idle(step)) continue;
        for (int k = 0; k < step->node.num_inputs; k++) {
            int *last = &s->last_reader[net->values[step->node.inputs[k]].storage];
            if (*last < i + 1) *last = i + 1;
        }
        if (!step->backward) continue;
        s->first = i;
        want(s, step, s->late);
    }
    for (int v = 1; v < net->num_values; v++) {
        const int made = net->values[v].storage == v && !is_idle(&net->steps[v - 1]) && v > s->first;
        s->made[v] = s->made[v - 1] + (made ? net->values[v].size : 0);
        for (int t = v; made && t < s->last_reader[v]; t++) s->crossing[t] += net->values[v].size;
    }
}

/* Whether storage v is made by cheap steps alone, from what is kept for backward anyway. */
static int is_cheap(const search *s, int v) {
    const efl_net *net = s->net;
    for (int i = v - 1; i < s->last_reader[v]; i++) {
        const efl_step *step = &net->steps[i];
        if (net->values[i + 1].storage != v || step->op->flags & EFL_ALIAS) continue;
        if (step->shapes.flops > CHEAP * net->values[v].size || step->shapes.saved.per_sample > 0) return 0;
        for (int k = 0; k < step->node.num_inputs; k++) {
            const int owner = net->values[step->node.inputs[k]].storage;
            if (owner != v && (net->values[owner].dropped || !(s->late[owner] || owner == 0))) return 0;
        }
    }
    return 1;
}

static int may_drop(const search *s, int v) {
    const efl_net *net = s->net;
    int read = 0; /* by a loss */
    for (int h = 0; h < net->num_heads; h++) read |= net->values[net->heads[h].input].storage == v;
    return v > s->first && net->values[v].storage == v && !is_idle(&net->steps[v - 1]) && !read;
}

static void keep_all(const search *s) {
    for (int v = 0; v < s->net->num_values; v++) s->net->values[v].dropped = 0;
}

static void drop_cheap(search *s, int64_t least) {
    keep_all(s);
    for (int v = 1; v < s->net->num_values; v++) {
        efl_value *value = &s->net->values[v];
        value->dropped = may_drop(s, v) && s->late[v] && value->size >= least && is_cheap(s, v);
        if (least == 0 && value->dropped && value->size > s->largest) s->largest = value->size;
    }
}

/* Cuts the net into segments that make `most` elements or one value each, so that the least crosses the cuts. */
static void cut(search *s, int64_t most) {
    const int n = s->net->num_steps;
    for (int t = s->first; t <= n; t++) {
        s->cost[t] = t == s->first ? 0 : INT64_MAX;
        for (int i = t - 1; i >= s->first && (i == t - 1 || s->made[t] - s->made[i] <= most); i--) {
            const int64_t cost = s->cost[i] + (t < n ? s->crossing[t] : 0);
            if (cost >= s->cost[t]) continue;
            s->cost[t] = cost;
            s->from[t] = i;
        }
    }
}

static void drop_segments(search *s, int64_t most) {
    efl_net *net = s->net;
    cut(s, most);
    keep_all(s);
    for (int end = s->from[net->num_steps]; end > s->first; end = s->from[end])
        for (int v = s->from[end] + 1; v <= end; v++)
            net->values[v].dropped = may_drop(s, v) && s->last_reader[v] <= end;
}

static void drop(search *s, int plan) {
    if (plan < HALVES) {
        drop_cheap(s, plan + 1 < HALVES ? s->largest >> plan : 0);
    } else {
        double most = (double)s->made[s->net->num_steps];
        for (int i = HALVES; i <= plan; i++) most *= 0.75;
        drop_segments(s, (int64_t)most);
    }
    schedule(s);
}

/* Leaves the net with the plan that fits and computes least again, or else with the smallest. */
static int choose(search *s, int64_t max_arena_bytes, int64_t *least, efl_error *error) {
    efl_net *net = s->net;
    int best = -1, smallest = -1;
    double best_cost = 0;
    drop_cheap(s, 0); /* finds the largest */
    for (int plan = 0; plan < PLANS; plan++) {
        drop(s, plan);
        const double cost = efl_net_flops_again(net);
        if (best >= 0 && cost >= best_cost) continue;
        if (efl_arena_measure(net, error) != EFL_OK) return error->code;
        if (net->arena_bytes < *least) {
            *least = net->arena_bytes;
            smallest = plan;
        }
        if (net->arena_bytes > max_arena_bytes) continue;
        best = plan;
        best_cost = cost;
    }
    if (best < 0) best = smallest;
    if (best >= 0) {
        drop(s, best);
    } else {
        keep_all(s);
        schedule(s);
    }
    return efl_arena_measure(net, error);
}

static int start(search *s, efl_net *net, efl_error *error) {
    const size_t n = (size_t)net->num_values;
    *s = (search){.net = net,
                  .last_reader = calloc(2 * n, sizeof *s->last_reader),
                  .made = calloc(3 * n, sizeof *s->made),
                  .late = calloc(4 * n, sizeof *s->late)};
    if (s->last_reader == NULL || s->made == NULL || s->late == NULL)
        return efl_fail(error, EFL_MEMORY, "no memory to compile the plan: free some");
    s->from = s->last_reader + n;
    s->crossing = s->made + n;
    s->cost = s->crossing + n;
    s->present = s->late + n;
    s->wanted = s->present + n;
    s->again = s->wanted + n;
    trace(s);
    schedule(s);
    return EFL_OK;
}

int efl_recompute(efl_net *net, int64_t max_arena_bytes, efl_needs *needs, efl_error *error) {
    search s;
    int code = start(&s, net, error);
    if (code == EFL_OK) code = efl_arena_measure(net, error);
    if (code == EFL_OK) {
        needs->arena_bytes = needs->least_bytes = net->arena_bytes;
        if (max_arena_bytes > 0 && net->arena_bytes > max_arena_bytes && net->arena_bytes < INT64_MAX)
            code = choose(&s, max_arena_bytes, &needs->least_bytes, error);
    }
    free(s.last_reader);
    free(s.made);
    free(s.late);
    return code;
}
