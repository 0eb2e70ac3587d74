/* net.c: the properties of a compiled net. */
#include "net.h"

int64_t efl_net_arena_bytes(const efl_net *net) {
    return net->arena_bytes;
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
