/* efl.h: the whole C API of the net, the training core. That of the codecs is codecs/codecs.h.
 *
 * Design:
 *   a) C computes, Cython checks buffers, Python decides. No Python here, no I/O, no globals but the kernel table.
 *   b) Functions that can fail return a status and write a message into the caller's efl_error. A message says
 *      what, where, and what the operator can do.
 *   c) efl_net_new distrusts the plan completely: it may have come from a network.
 *   d) A net owns one arena, sized when it is made; a training step allocates nothing.
 *   e) With EFL_PROFILE_SMALL the core is that of a microcontroller: no threads, no vectors, no printf, 4 kB of stack.
 *      And with EFL_PLAN_HEADER, which `edgefl inspect --c-header` has written, it has the ops of that plan alone.
 *   f) A net computes with 0 for denormals. A caller's floating-point mode is as before when a function returns.
 *
 * Shapes in comments: B samples, P all params, T the trained ones among them (T <= P).
 */
#ifndef EFL_H
#define EFL_H

#include <stddef.h>
#include <stdint.h>

#define EFL_MAX_DIMS 6
#define EFL_MAX_INPUTS 8
#define EFL_MAX_PARAMS 8
#define EFL_MAX_INTS 48
#define EFL_MAX_FLOATS 4
#define EFL_MAX_LOSSES 8
#ifdef EFL_PROFILE_SMALL
#define EFL_MAX_THREADS 1
#else
#define EFL_MAX_THREADS 64
#endif

enum { EFL_OK = 0, EFL_MODEL, EFL_DATA, EFL_USAGE, EFL_MEMORY, EFL_CANCELLED };

typedef struct {
    int code;
    char message[256];
} efl_error;

/* Writes the message and returns `code`. */
int efl_fail(efl_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Selects the kernels of an instruction set: "baseline", "avx2" or "avx512"; NULL or "" selects the best that this
 * processor has. EFL_USAGE if it lacks that one. Call once, before anything else and before any thread. */
int efl_isa_select(const char *name, efl_error *error);
const char *efl_isa(void); /* "neon" for the baseline of aarch64, "scalar" in the small profile */

/* ---- the net --------------------------------------------------------------------------------------------- */

typedef struct {
    int ndim;
    int64_t dim[EFL_MAX_DIMS];
} efl_shape; /* per sample: the samples' axis is never in it */

typedef struct {
    char op[32]; /* a name of the table in ops/ops.h */
    int num_inputs, num_params, num_ints, num_floats;
    int inputs[EFL_MAX_INPUTS]; /* value numbers: 0 is the net's input, node i makes value i + 1 */
    int params[EFL_MAX_PARAMS];
    int64_t ints[EFL_MAX_INTS];
    double floats[EFL_MAX_FLOATS];
} efl_node;

typedef struct {
    efl_shape shape;
    int trainable; /* all trainable params come before all others */
} efl_param;

typedef struct {
    const char *name; /* of the table in ops/ops.h */
    int input;        /* the value that it reads */
    double weight;    /* of its mean in the sum */
} efl_plan_loss;

typedef struct {
    efl_shape input;
    int num_nodes, num_params;
    const efl_node *nodes;
    const efl_param *params;
    const char *loss; /* a name of the table in ops/ops.h */
    int loss_input, output;
    int num_losses; /* 0: `loss` alone; else 2 to 8, and `loss` is not read */
    const efl_plan_loss *losses;
    int apart; /* 1: fuse no nodes (fuse.c), for tests */
} efl_plan;

typedef struct efl_net efl_net;

/* Compiles the plan for up to `batch` samples at a time, larger batches go in pieces. Nothing of the plan is kept.
 * Where the arena would exceed max_arena_bytes (0: no limit), backward computes part of the forward pass again, with
 * the same bits. EFL_MODEL if the plan is not valid, EFL_MEMORY if the arena exceeds max_arena_bytes even so, or
 * malloc. */
int efl_net_new(efl_net **net, const efl_plan *plan, int64_t batch, int64_t max_arena_bytes, efl_error *error);
void efl_net_free(efl_net *net);
typedef struct {
    int64_t arena_bytes; /* without a limit; INT64_MAX if no machine could hold it */
    int64_t least_bytes; /* under the lowest limit that efl_net_new can keep */
    int mixes_samples;   /* training batches can't go in pieces */
} efl_needs;

/* What efl_net_new would need. Errors as there, but for the limit. */
int efl_plan_needs(const efl_plan *plan, int64_t batch, efl_needs *needs, efl_error *error);
/* The sum of efl_net_flops over the nodes that the loss depends on. EFL_MODEL if the plan is not valid. */
int efl_plan_flops(const efl_plan *plan, double *flops, efl_error *error);

/* Once, between calls: the net computes with so many threads (1 to 64), the caller's among them; the results are the
 * same. Each has memory of its own, which adds to the arena's; there are fewer where that would exceed max_arena_bytes
 * (0: no limit). EFL_USAGE, EFL_MEMORY. */
int efl_net_use_threads(efl_net *net, int threads, int64_t max_arena_bytes, efl_error *error);
int efl_net_threads(const efl_net *net);

int64_t efl_net_arena_bytes(const efl_net *net);
double efl_net_flops_again(const efl_net *net); /* of the forward pass of one sample, computed again in backward */
int64_t efl_net_num_params(const efl_net *net);             /* P */
int64_t efl_net_target_size(const efl_net *net); /* O, targets a sample; 0 where the one loss takes labels */
int64_t efl_net_label_count(const efl_net *net); /* labels a sample; 0 where y holds targets */
int efl_net_mixes_samples(const efl_net *net); /* training batches can't go in pieces */
int efl_net_num_values(const efl_net *net); /* nodes + 1 */
const efl_shape *efl_net_shape(const efl_net *net, int value);
int64_t efl_net_size(const efl_net *net, int value); /* elements of a sample */
int64_t efl_net_flops(const efl_net *net, int node); /* forward, one sample */
int efl_net_output(const efl_net *net); /* the value that efl_predict returns */

typedef struct {
    const float *x; /* (n, input) */
    const int64_t *labels; /* (n, labels a sample) where the one loss takes labels, else NULL */
    const float *targets; /* (n, O) where it doesn't, or there are several losses (heads.c), else NULL */
    int64_t n;
    const int64_t *rows; /* (n) which samples of x, labels or targets they are, in efl_fit; NULL: the first n */
} efl_data;

typedef struct {
    int64_t epochs, batch_size;
    int64_t max_steps; /* 0: no limit */
    uint64_t seed;
    int nesterov, adam; /* at most one of them */
    double lr, momentum, weight_decay, prox_mu;
    double clip_norm; /* 0: don't clip */
    const float *correction; /* (T) what every step adds to the gradient; NULL: nothing */
    int buffered; /* keep the whole gradient even where a step needs none: the reference of the fused path */
} efl_fit_options;

typedef struct {
    int64_t steps;
    double loss; /* mean over the samples of the last epoch, as far as it went; of several, their weighted sum */
} efl_fit_result;

/* delta(P) = params after local SGD - params, snapped by efl_delta. A step on one batch is
 *     g = gradient of the mean loss, scaled down to an L2 norm of clip_norm if it is longer
 *     g += correction                                 SCAFFOLD's c - c_k, Karimireddy et al. 2020, arXiv:1910.06378
 *     g += weight_decay w + prox_mu (w - params)      FedProx, Li et al. 2020, arXiv:1812.06127
 *     v = momentum v + g;  w -= lr v                  as PyTorch's SGD does; nesterov: w -= lr (g + momentum v)
 *     adam: v, s = moments of g;  w -= lr v' / (sqrt(s') + 1e-8)    Kingma, Ba 2015; beta2 0.999, beta1 = momentum
 * Where a step needs neither clipping nor pieces, params move node by node, as soon as their gradient is known. Until
 * the end, delta holds the local params. Batches follow efl_permutation(seed, epoch), and the last one may be short;
 * batch_size >= n is one batch in the given order. The same seed, plan and instruction set give the same bits.
 * EFL_DATA for a label or token out of range; EFL_USAGE for a batch that can't go in pieces and is larger than the
 * net's; EFL_CANCELLED after efl_net_cancel, and then delta is unfinished; EFL_MEMORY if the order, momentum or
 * gradient can't be allocated. */
int efl_fit(efl_net *net, const float *params, const efl_data *data, const efl_fit_options *options, float *delta,
            efl_fit_result *result, efl_error *error);
/* From any thread: makes a running efl_fit, efl_gradient, efl_evaluate or efl_predict return soon, within a batch and
 * within an op too (ops/pieces.h); without one, no effect. */
void efl_net_cancel(efl_net *net);
/* From any thread: from its next piece of a batch on, the net computes `percent` (1 to 100) of the time. */
void efl_net_set_share(efl_net *net, int percent);

/* gradient(P) of the mean loss; 0 for what is not trained. Errors as efl_fit's. */
int efl_gradient(efl_net *net, const float *params, const efl_data *data, float *gradient, efl_error *error);
/* Mean loss, and the share of samples (for bce: of outputs) that are right by the first loss that knows: -1 if none
 * does, as mse, l1 and huber. */
int efl_evaluate(efl_net *net, const float *params, const efl_data *data, double *loss, double *accuracy,
                 efl_error *error);
/* out (n, output shape); EFL_DATA for a token out of range, EFL_CANCELLED. */
int efl_predict(efl_net *net, const float *params, const float *x, int64_t n, float *out, efl_error *error);

/* Whether x(N) has neither NaN nor infinity. */
int efl_all_finite(const float *x, int64_t n);

/* order(n) = a permutation of 0..n-1 that depends on seed and epoch alone. */
void efl_permutation(uint32_t *order, int64_t n, uint64_t seed, uint64_t epoch);

#endif
