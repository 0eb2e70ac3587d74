/* net.h: the compiled net, shared by compile.c (which makes it) and net.c (which runs it). */
#ifndef EFL_NET_H
#define EFL_NET_H

#include "efl.h"
#include "ops/ops.h"

#include <stdatomic.h>

typedef struct {
    efl_shape shape;
    int64_t size; /* elements of one sample */
    int storage;  /* the value whose memory it lives in: itself, or the one it is an alias of or overwrites */
    int has_gradient;

    /* of a storage's owner only */
    float *data, *gradient; /* (batch, size); gradient is NULL where none is needed */
    int readers;            /* nodes that read the memory, aliases aside */
    int pinned;             /* may not be overwritten: backward reads what is in it */
    int written;            /* its gradient has a first contribution in this backward pass */
} efl_value;

typedef struct {
    efl_node node;
    const efl_op *op;
    efl_op_shapes shapes;
    int trains, predicts; /* the loss, the output depends on it */
} efl_step;

struct efl_net {
    int num_steps, num_values, num_tensors;
    efl_step *steps;     /* (num_steps) */
    efl_value *values;   /* (num_values) */
    int64_t *offsets;    /* (num_tensors + 1) where each param starts in the params vector */
    int num_trainable;   /* tensors */
    const efl_loss *loss;
    int loss_input, output;
    int64_t batch, arena_bytes;

    void *arena;
    float *w;         /* (P) the local params of efl_fit */
    float *g, *v;     /* (T) gradient and momentum; pages never touched cost no memory */
    float *spare;     /* further gradient contributions to one node's inputs */
    int64_t *labels;  /* (batch) */
    float *targets;   /* (batch, O) */

    const float *params; /* (P) that forward and backward read: w, or the caller's */
    atomic_int cancelled;
};

static inline int64_t efl_num_trained(const efl_net *net) { /* T */
    return net->offsets[net->num_trainable];
}

#endif
