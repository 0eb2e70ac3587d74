/* net.h: the compiled net, shared by compile.c (which makes it), arena.c (which lays it out), run.c and fit.c
 * (which run it). */
#ifndef EFL_NET_H
#define EFL_NET_H

#include "efl.h"
#include "ops/ops.h"

typedef struct {
    efl_shape shape;
    int64_t size; /* elements of one sample */
    int storage;  /* the value whose memory it lives in: itself, or the one it is an alias of or overwrites */
    int has_gradient;

    /* of a storage's owner only */
    float *data, *gradient; /* (batch, size); gradient is NULL where none is needed */
    int readers;            /* nodes that read the memory, without aliases */
    int pinned;             /* may not be overwritten: backward reads what is in it */
    int written;            /* its gradient has a first contribution in this backward pass */
} efl_value;

typedef struct {
    efl_node node;
    const efl_op *op;
    efl_op_shapes shapes;
    int trains, predicts; /* the loss, the output depends on it */
    int backward;         /* it has a backward: it owns trained params, or a value before it has a gradient */
    float *saved;
} efl_step;

struct efl_net {
    int num_steps, num_values, num_tensors;
    efl_step *steps;     /* (num_steps) */
    efl_value *values;   /* (num_values) */
    int64_t *offsets;    /* (num_tensors + 1) where each param starts in the params vector */
    int *owners;         /* (num_tensors + 1) nodes that own each param */
    int shares_params;   /* a trained one has several owners: its gradient is a sum, which needs the buffered path */
    int num_trainable;   /* tensors */
    const efl_loss *loss;
    int loss_input, output;
    int mixes_samples;
    int64_t vocabulary;  /* input tokens must be below; 0: the input holds numbers */
    int64_t batch, arena_bytes;

    void *arena;
    float *spare;     /* further gradient contributions to one node's inputs */
    float *scratch;   /* of the op that runs */
    int64_t *labels;  /* (batch, labels a sample) */
    float *targets;   /* (batch, O) */

    const float *params; /* (P) that forward and backward read */
    atomic_int cancelled;
    atomic_int rest;      /* percent of the time that it must not compute: pace.c */
    double working_since; /* seconds */
};

/* What the running step does with gradients. All is NULL except in training. */
typedef struct {
    float *gradient;     /* (T) to add to, or */
    float *transient;    /* one node's, zeroed before and used up after it, */
    const efl_sgd *sgd;  /* by this step, */
    float *w, *v, *s;    /* (P), (T), (T) on these */
    const float *w0;     /* (P) */
    const float *c;      /* (T), or NULL: the correction */
    uint64_t seed;       /* of this step; 0: draw nothing */
    int64_t first;       /* sample of the step's batch that the running piece starts with */
} efl_training;

static inline int64_t efl_num_trained(const efl_net *net) { /* T */
    return net->offsets[net->num_trainable];
}

static inline efl_value *efl_memory(const efl_net *net, int value) {
    return &net->values[net->values[value].storage];
}

static inline int efl_is_cancelled(const efl_net *net) {
    return atomic_load_explicit(&net->cancelled, memory_order_relaxed);
}

/* Rows of logits a sample: 1, or the steps of a sequence. */
static inline int64_t efl_loss_rows(const efl_net *net) {
    const efl_value *logits = &net->values[net->loss_input];
    return net->loss->takes_labels ? logits->size / logits->shape.dim[logits->shape.ndim - 1] : 1;
}

/* compile.c hands over to: */
int efl_arena_make(efl_net *net, int64_t max_arena_bytes, efl_error *error);
/* or, to compute arena_bytes without allocating them (INT64_MAX if they are too many): */
int efl_arena_measure(efl_net *net, efl_error *error);

/* pace.c: the net begins to compute; and, between two pieces of a batch, rests if it has computed long enough. */
void efl_begin_work(efl_net *net);
void efl_rest(efl_net *net);

/* fit.c: the functions of efl.h, inside what calls.c puts around them. efl_run_fit writes the local params. */
int efl_run_fit(efl_net *net, const float *params, const efl_data *data, const efl_fit_options *options, float *local,
                efl_fit_result *result, efl_error *error);
int efl_run_gradient(efl_net *net, const float *params, const efl_data *data, float *gradient, efl_error *error);
int efl_run_evaluate(efl_net *net, const float *params, const efl_data *data, double *loss, double *accuracy,
                     efl_error *error);
int efl_run_predict(efl_net *net, const float *params, const float *x, int64_t n, float *out, efl_error *error);

/* run.c */
void efl_forward(efl_net *net, int64_t batch, int for_loss, const efl_training *training);
void efl_backward(efl_net *net, int64_t batch, const efl_training *training);
/* Whether this node's w[0] is updated by the op itself. */
int efl_fuses(const efl_net *net, const efl_step *step, const efl_training *training);

#endif
