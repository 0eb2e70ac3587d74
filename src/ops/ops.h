/* ops.h: what an op and a loss are, and the tables of them.
 *
 * To add an op: one file beside this one that defines an efl_op, and one line in EFL_OPS below. A loss alike.
 */
#ifndef EFL_OPS_H
#define EFL_OPS_H

#include "../efl.h"
#include "../kernels/kernels.h"

#define EFL_OPS(op) \
    op(dense)       \
    op(add)         \
    op(flatten)     \
    op(relu)        \
    op(tanh)        \
    op(sigmoid)     \
    op(softmax)     \
    op(log_softmax)

#define EFL_LOSSES(loss) \
    loss(cross_entropy)  \
    loss(bce)            \
    loss(mse)

/* One node with its shapes. infer reads x and w and writes the rest. */
typedef struct {
    const efl_node *node;
    efl_shape x[EFL_MAX_INPUTS], w[EFL_MAX_PARAMS];
    efl_shape y;
    int64_t flops; /* forward, one sample */
} efl_op_shapes;

/* One node at work on `batch` samples. */
typedef struct {
    const efl_op_shapes *shapes;
    int64_t batch;
    const float *x[EFL_MAX_INPUTS], *w[EFL_MAX_PARAMS];
    float *y;
    const float *dy;
    float *dx[EFL_MAX_INPUTS]; /* to write; NULL where nobody needs it */
    float *dw[EFL_MAX_PARAMS]; /* to add to; NULL where the param is not trained */
} efl_op_run;

enum {
    EFL_IN_PLACE = 1, /* y may be x[0], and then dx[0] is dy */
    EFL_READS_Y = 2,  /* backward reads y, so that nobody may overwrite it */
    EFL_ALIAS = 4,    /* y is x[0] under another shape: nothing to compute */
};

typedef struct {
    const char *name;
    int flags;
    int num_inputs, min_params, max_params;
    int (*infer)(efl_op_shapes *shapes, efl_error *error); /* the message continues "node 3 (dense): " */
    void (*forward)(const efl_op_run *run);
    void (*backward)(const efl_op_run *run);
} efl_op;

/* A loss at work on `batch` samples of `size` logits. */
typedef struct {
    int64_t batch, size;
    const float *logits;   /* (B, size) */
    const int64_t *labels; /* (B) if the loss takes labels */
    const float *targets;  /* (B, size) if not */
    float *dlogits;        /* (B, size) to write, of the summed loss times `scale`; NULL when evaluating */
    float scale;
    int64_t correct; /* out: right answers among B labels or B * size targets */
} efl_loss_run;

typedef struct {
    const char *name;
    int takes_labels; /* the mean is over samples; otherwise over samples and outputs */
    int has_accuracy;
    double (*run)(efl_loss_run *run); /* the summed loss */
} efl_loss;

#define EFL_DECLARE_OP(name) extern const efl_op efl_op_##name;
#define EFL_DECLARE_LOSS(name) extern const efl_loss efl_loss_##name;
EFL_OPS(EFL_DECLARE_OP)
EFL_LOSSES(EFL_DECLARE_LOSS)

/* NULL if there is none of that name. */
const efl_op *efl_op_find(const char *name);
const efl_loss *efl_loss_find(const char *name);

/* The product of the dims; -1 if a dim is not positive or the product exceeds 2^30. */
int64_t efl_shape_size(const efl_shape *shape);

#endif
