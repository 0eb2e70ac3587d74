/* ops.h: what an op and a loss are, and the tables of them.
 *
 * To add an op, write a file here that defines an efl_op and give it a line in EFL_OPS below. A loss is added likewise.
 */
#ifndef EFL_OPS_H
#define EFL_OPS_H

#include "../efl.h"
#include "../kernels/kernels.h"

#include <stdatomic.h>

/* A line for each file. */
/* clang-format off */
#define EFL_OPS(op) \
    op(dense) \
    op(matmul) \
    op(embedding) \
    op(conv) \
    op(conv_part) \
    op(conv_transpose) \
    op(depthwise) \
    op(maxpool) op(avgpool) \
    op(lstm) \
    op(gru) \
    op(rnn) \
    op(batch_norm) op(layer_norm) \
    op(lrn) \
    op(dropout) \
    op(add) op(sub) op(mul) op(div) op(max) op(min) \
    op(mean) \
    op(reduce_max) op(reduce_min) op(norm) op(log_sum_exp) \
    op(group_norm) \
    op(mask) op(select) op(step) op(keep) \
    op(flatten) op(reshape) op(transpose) op(pad) op(slice) op(concat) \
    op(resize) op(extend) op(stride) \
    op(expand) op(repeat) \
    op(relu) op(tanh) op(sigmoid) op(softmax) op(log_softmax) \
    op(leaky_relu) op(clip) op(hard_sigmoid) op(hard_swish) op(gelu) op(erf) op(sqrt) op(exp) op(log) op(pow) \
    op(abs) op(elu) op(softplus) op(mish) op(threshold) op(shrink) op(sin) op(cos)
/* clang-format on */

#define EFL_LOSSES(loss) loss(cross_entropy) loss(bce) loss(mse) loss(l1) loss(huber) loss(hinge) loss(focal)

/* Memory in floats: for each sample of a batch, and a fixed part. */
typedef struct {
    int64_t per_sample, fixed;
} efl_room;

/* One node with its shapes. infer reads node, x and w, and writes the rest (all zero before). */
typedef struct {
    const efl_node *node;
    efl_shape x[EFL_MAX_INPUTS], w[EFL_MAX_PARAMS];
    efl_shape y;
    int64_t flops;    /* forward, one sample */
    efl_room saved;   /* what forward leaves for backward: masks, gates, indices */
    efl_room scratch; /* what forward or backward needs while it runs */
    efl_room sums;    /* of scratch, what backward alone needs, if it has trained params or several inputs */
    int64_t own;      /* floats of the fixed scratch that each thread needs for itself (parts.h) */
    /* Not 0: the op applies run->clamp if there is one, and backward its slope to dy, which it finds from x
     * (EFL_READS_X) or y (EFL_READS_Y). */
    int clamps;
    int64_t inner[8]; /* the op's own: geometry worked out once */
} efl_op_shapes;

/* What an op with EFL_FUSES applies to w[0] instead of adding to dw[0]: w -= lr ..., as efl_kernels->sgd_step. */
typedef struct {
    const efl_sgd *sgd;
    float *w, *v, *s; /* the weights; their momentum, Adam's second moment, or NULL */
    const float *w0; /* the round's start */
    const float *c;  /* the correction, or NULL */
} efl_update;

/* One node at work on `batch` samples. */
typedef struct {
    const efl_op_shapes *shapes;
    int64_t batch;
    int training;  /* 0: as onnxruntime would compute it */
    int again; /* forward runs a second time for backward: saved holds what it left, if that is no array a sample */
    uint64_t seed; /* of this node in this step of efl_fit; 0 elsewhere, where nothing may be drawn */
    int64_t first; /* index of the first sample in the step's batch, so that pieces draw the same as a whole batch */
    const float *x[EFL_MAX_INPUTS], *w[EFL_MAX_PARAMS];
    float *y;
    const float *dy;
    float *dx[EFL_MAX_INPUTS]; /* to write; NULL if it is not needed */
    float *dw[EFL_MAX_PARAMS]; /* to add to; NULL if the param is not trained */
    float *state[EFL_MAX_PARAMS]; /* untrained params in efl_fit, which forward may move; else NULL */
    const efl_clamp *clamp; /* NULL, or to be applied to y: a relu or clip that fuse.c made part of the node */
    const efl_update *update; /* NULL, or to be applied to w[0] after everything has been read from it */
    float *saved, *scratch;
    uint32_t *bits; /* in saved, for an op with EFL_BITS that is to keep them; else NULL */
    const atomic_int *stop; /* not 0: nobody wants the result any more (pieces.h) */

    /* For parts.h. */
    struct efl_pool *pool; /* NULL: this thread does everything */
    float *rooms; /* of the pool's threads, `room` floats each */
    int64_t room;
    int in_part; /* this is a part, and is not split again */
} efl_op_run;

enum {
    EFL_IN_PLACE = 1, /* if backward reads no x: y may be x[0], and then dx[0] is dy */
    EFL_READS_X = 2, /* backward reads x */
    EFL_READS_Y = 4, /* backward reads y, so it must not be overwritten */
    EFL_ALIAS = 8, /* y is x[0] under another shape: nothing to compute */
    EFL_FUSES = 16, /* applies run->update if there is one */
    EFL_MIXES_SAMPLES = 32, /* in training a sample's result depends on the others: batches can't go in pieces */
    EFL_TAKES_TOKENS = 64, /* x[0] holds whole numbers below w[0].dim[0] */
    EFL_X_FOR_W = 128, /* of one input, backward reads x for the gradient of w[0] alone */
    EFL_BITS = 256, /* with run->bits, forward keeps there what backward needs of y: bits.h */
    EFL_BY_SAMPLES = 512, /* y, dx, saved, scratch: all is per sample, and some samples can be computed by themselves;
                             or the scratch is all `own` */
};

typedef struct {
    const char *name;
    int flags;
    int min_inputs, max_inputs, min_params, max_params;
    int num_ints, num_floats; /* attributes: exactly so many; -1: infer checks the number */
    int (*infer)(efl_op_shapes *shapes, efl_error *error); /* the message continues "node 3 (dense): " */
    void (*forward)(const efl_op_run *run);
    void (*backward)(const efl_op_run *run);
} efl_op;

/* A loss at work on `rows` rows of `size` logits; a sample has more than one row where every step of a sequence
 * has its own label. */
typedef struct {
    int64_t rows, size;
    const float *logits; /* (R, size) */
    const int64_t *labels; /* (R) if the loss takes labels */
    const float *targets; /* (R, size) if not */
    float *dlogits; /* (R, size) to write, of the summed loss times `scale`; NULL when evaluating */
    float scale;
    int64_t correct; /* out: right answers among R labels or R * size targets */
} efl_loss_run;

typedef struct {
    const char *name;
    int takes_labels; /* the mean is over labels; otherwise over samples and outputs */
    int has_accuracy;
    double (*run)(efl_loss_run *run); /* the summed loss */
} efl_loss;

#define EFL_DECLARE_OP(name) extern const efl_op efl_op_##name;
#define EFL_DECLARE_LOSS(name) extern const efl_loss efl_loss_##name;
EFL_OPS(EFL_DECLARE_OP)
EFL_LOSSES(EFL_DECLARE_LOSS)

/* NULL if no op of this build has this name. */
const efl_op *efl_op_find(const char *name);
/* By name, since a build for one plan must not refer to the ops of others. */
int efl_op_is(const efl_op *op, const char *name);
const efl_loss *efl_loss_find(const char *name);

/* The product of the dims; -1 if a dim is not positive or the product exceeds 2^30. */
int64_t efl_shape_size(const efl_shape *shape);

#endif
