/* net.h: the compiled net, shared by compile.c (which makes it), recompute.c (which decides what a step keeps),
 * arena.c (which lays it out), run.c and fit.c (which run it). */
#ifndef EFL_NET_H
#define EFL_NET_H

#include "efl.h"
#include "ops/ops.h"

/* what to do about a plan that this build can't run */
#ifdef EFL_PLAN_HEADER
#define EFL_PLAN_HINT "build it with the header that edgefl inspect --c-header writes for this plan"
#else
#define EFL_PLAN_HINT "compile the plan again from its ONNX file"
#endif

typedef struct {
    efl_shape shape;
    int64_t size; /* elements of one sample */
    int storage;  /* the value whose memory it lives in: itself, or the one it is an alias of or overwrites */
    int has_gradient;

    /* of a storage's owner only */
    float *data, *gradient; /* (batch, size); gradient is NULL where none is needed */
    float *late;            /* what backward reads: data, or where it is computed again */
    int dropped;            /* not kept for backward, but computed again: recompute.c */
    int readers;            /* nodes that read the memory, without aliases */
    int pinned;             /* may not be overwritten: backward reads what is in it */
    int written;            /* its gradient has a first contribution in this backward pass */
} efl_value;

typedef struct {
    efl_node node;
    const efl_op *op;
    efl_op_shapes shapes;
    int trains, predicts; /* the loss, the output depends on it */
    int clamps;           /* fuse.c: it also does what the relu or clip after it would */
    efl_clamp clamp;
    int backward;         /* it has a backward: it owns trained params, or a value before it has a gradient */
    int64_t token_from, token_count; /* columns of the net's input that an op with EFL_TAKES_TOKENS reads */
    int flags;            /* of the op, without what this node does not do: a frozen weight's node reads no x */
    float *saved;         /* of forward */
    float *late_saved;    /* of backward: the same, or of the second forward */
    float *scratch;       /* of forward */
} efl_step;

/* In a backward pass: a node's backward, or its forward once more. */
typedef struct {
    int step, again;
    float *scratch;
} efl_turn;

typedef struct {
    const efl_loss *kind;
    int input;            /* the value that it reads */
    double weight;        /* of its mean in the loss of the net */
    int64_t rows, size;   /* of a sample's logits */
    int64_t terms;        /* of the mean, in a sample: a label a row, or a target a logit */
    int64_t column;       /* of its first label or target, where y has columns for several heads */
    int64_t *labels;      /* (batch, rows) where it takes labels */
    float *targets;       /* (batch, terms) where it doesn't */
} efl_head;

struct efl_net {
    int num_steps, num_values, num_tensors;
    efl_step *steps;     /* (num_steps) */
    efl_value *values;   /* (num_values) */
    int64_t *offsets;    /* (num_tensors + 1) where each param starts in the params vector */
    int *owners;         /* (num_tensors + 1) nodes that own each param */
    int shares_params;   /* a trained one has several owners: its gradient is a sum, which needs the buffered path */
    int num_trainable;   /* tensors */
    efl_head heads[EFL_MAX_LOSSES];
    int num_heads;
    int64_t num_columns; /* of y, with several heads; else 0 */
    int output;
    int mixes_samples;
    int64_t batch, arena_bytes;
    efl_turn *turns;      /* (num_turns) the backward pass, in order; room for 2 num_steps */
    int num_turns;

    void *arena;
    float *spare;     /* further gradient contributions to one node's inputs */

    struct efl_pool *pool; /* of threads; NULL: one */
    float *rooms;          /* the pool's threads' own scratch, `room` floats each */
    int64_t room;
    int threads; /* of the pool */

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

/* Where sample i of the data is in its arrays. */
static inline int64_t efl_row(const efl_data *data, int64_t i) {
    return data->rows == NULL ? i : data->rows[i];
}

/* heads.c: the losses that the plan names, once its values have shapes; */
int efl_heads_make(efl_net *net, const efl_plan *plan, efl_error *error);
/* EFL_MODEL if two of them would write one gradient; after storages are known; */
int efl_heads_apart(const efl_net *net, efl_error *error);
/* EFL_DATA for a label that is no class; */
int efl_heads_check(const efl_net *net, const efl_data *data, efl_error *error);
/* copies y of row `sample` to place i of the batch; */
void efl_heads_gather(efl_net *net, const efl_data *data, int64_t sample, int64_t i);
/* the summed loss of `batch` samples, and in training its gradient times 1/n, n the samples of the whole step; */
double efl_heads_run(efl_net *net, int64_t batch, int64_t n, int training, int64_t *correct);
/* what such a sum of n samples is divided by; */
double efl_heads_count(const efl_net *net, int64_t n);
/* and the first head with an accuracy, whose right answers are counted: NULL if none has one. */
const efl_head *efl_scored_head(const efl_net *net);

/* compile.c hands over to fuse.c, unless nodes are to stay apart, and to: */
void efl_fuse(efl_net *net);
int efl_recompute(efl_net *net, int64_t max_arena_bytes, efl_needs *needs, efl_error *error);
/* which measures arenas, and leaves the net with the one to make. needs->least_bytes is right if the limit is 1. */
int efl_arena_make(efl_net *net, int64_t max_arena_bytes, efl_error *error);
/* Computes arena_bytes without allocating them (INT64_MAX if they are too many). */
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
