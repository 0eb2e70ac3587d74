/* net.c: the properties of a compiled net. */
#include "net.h"
#include "threads.h"

#include <stdlib.h>

int efl_net_use_threads(efl_net *net, int threads, int64_t max_arena_bytes, efl_error *error) {
    enum { LINE = 16 }; /* floats of the cache: no two threads write to one */
    int64_t room = 0;
    if (threads < 1 || threads > EFL_MAX_THREADS)
        return efl_fail(error, EFL_USAGE, "threads is %d: use 1 to %d", threads, EFL_MAX_THREADS);
    for (int i = 0; i < net->num_steps; i++)
        if (net->steps[i].shapes.own > room) room = net->steps[i].shapes.own;
    room = (room + 2 * LINE - 1) / LINE * LINE;
    const int64_t each = room * (int64_t)sizeof(float);
    while (threads > 1 && max_arena_bytes > 0 && net->arena_bytes + (threads - 1) * each > max_arena_bytes) threads--;
    if (threads == 1) return EFL_OK;
    net->rooms = (uint64_t)each <= SIZE_MAX ? calloc((size_t)(threads - 1), (size_t)each) : NULL;
    net->pool = efl_pool_new(threads);
    if (net->rooms == NULL || net->pool == NULL)
        return efl_fail(error, EFL_MEMORY, "no memory for %d threads: use fewer", threads);
    net->room = room;
    net->threads = threads;
    net->arena_bytes += (threads - 1) * each;
    return EFL_OK;
}

int efl_net_threads(const efl_net *net) {
    return net->threads > 1 ? net->threads : 1;
}

int64_t efl_net_arena_bytes(const efl_net *net) {
    return net->arena_bytes;
}

double efl_net_flops_again(const efl_net *net) {
    double flops = 0;
    for (int t = 0; t < net->num_turns; t++)
        if (net->turns[t].again) flops += (double)net->steps[net->turns[t].step].shapes.flops;
    return flops;
}

int64_t efl_net_num_params(const efl_net *net) {
    return net->offsets[net->num_tensors];
}

int64_t efl_net_target_size(const efl_net *net) {
    if (net->num_heads > 1) return net->num_columns;
    return net->heads[0].kind->takes_labels ? 0 : net->heads[0].terms;
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

int64_t efl_net_label_count(const efl_net *net) {
    return net->num_heads == 1 && net->heads[0].kind->takes_labels ? net->heads[0].terms : 0;
}

int efl_net_mixes_samples(const efl_net *net) {
    return net->mixes_samples;
}
