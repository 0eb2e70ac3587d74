/* fit.c: the uses of a net: epochs of local SGD, gradients, evaluation, prediction.
 *
 * A step takes one of two paths. Buffered: the gradient of all trained params is one vector (T). So the gradients of
 * a param that several nodes read add up, a batch larger than the arena can go through in pieces, and clipping has the
 * norm of the whole. Fused: params move node by node in the backward pass, and only one node's gradient exists at a
 * time.
 */
#include "net.h"
#include "ops/pieces.h"
#include "rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Copies samples order[first..] of the data, or the data in its own order, to where the net reads them. */
static void gather(efl_net *net, const efl_data *data, const uint32_t *order, int64_t first, int64_t batch) {
    const int64_t in = net->values[0].size;
    for (int64_t i = 0; i < batch; i++) {
        const int64_t sample = efl_row(data, order == NULL ? first + i : order[first + i]);
        memcpy(net->values[0].data + i * in, data->x + sample * in, (size_t)in * sizeof(float));
        efl_heads_gather(net, data, sample, i);
    }
}

enum { LINE = 16 /* floats of the cache */, AHEAD = 1 << 14 /* floats, a part of the second cache */ };

/* Calls for the rows that are to be gathered next, so that they are in the cache when this batch has been computed. */
static void prefetch(const efl_net *net, const efl_data *data, const uint32_t *order, int64_t first, int64_t batch) {
    const int64_t in = net->values[0].size, left = data->n - first;
    int64_t rows = left < batch ? left : batch;
    if (rows > AHEAD / in) rows = AHEAD / in;
    for (int64_t i = 0; i < rows; i++) {
        const float *row = data->x + in * efl_row(data, order == NULL ? first + i : order[first + i]);
        for (int64_t j = 0; j < in; j += LINE) __builtin_prefetch(row + j, 0, 2);
    }
}

/* The summed loss of n samples from `first`. With `training`, the gradient of their mean loss goes where it says. */
static double run_batch(efl_net *net, const efl_data *data, const uint32_t *order, int64_t first, int64_t n,
                        efl_training *training, int64_t *correct) {
    double loss = 0;
    if (training != NULL && training->gradient != NULL)
        memset(training->gradient, 0, (size_t)efl_num_trained(net) * sizeof *training->gradient);
    for (int64_t done = 0; done < n && !efl_is_cancelled(net); done += net->batch) {
        const int64_t batch = n - done < net->batch ? n - done : net->batch;
        if (training != NULL) training->first = done;
        gather(net, data, order, first + done, batch);
        prefetch(net, data, order, first + done + batch, batch);
        efl_forward(net, batch, 1, training);
        loss += efl_heads_run(net, batch, n, training != NULL, correct);
        if (training != NULL) efl_backward(net, batch, training);
        efl_rest(net);
    }
    return loss;
}

/* The tokens that each embedding reads must be in its own vocabulary. */
static int check_tokens(const efl_net *net, const efl_data *data, efl_error *error) {
    const int64_t size = net->values[0].size;
    for (int node = 0; node < net->num_steps; node++) {
        const efl_step *step = &net->steps[node];
        const int64_t vocabulary = step->shapes.w[0].dim[0];
        for (int64_t i = 0; i < data->n * step->token_count; i++) {
            const int64_t sample = i / step->token_count, column = step->token_from + i % step->token_count;
            const float token = data->x[efl_row(data, sample) * size + column];
            if (!(token >= 0 && token < (float)vocabulary) || token != floorf(token))
                return efl_fail(error, EFL_DATA,
                                "token %.9g of sample %lld is not one of 0..%lld: encode x with the model's "
                                "own vocabulary",
                                (double)token, (long long)sample, (long long)vocabulary - 1);
        }
    }
    return EFL_OK;
}

static int check_data(const efl_net *net, const efl_data *data, efl_error *error) {
    if (efl_heads_check(net, data, error) != EFL_OK) return error->code;
    return check_tokens(net, data, error);
}

static int check_pieces(const efl_net *net, int64_t batch_size, efl_error *error) {
    if (!net->mixes_samples || batch_size <= net->batch) return EFL_OK;
    return efl_fail(error, EFL_USAGE,
                    "batch normalization needs all %lld samples of a batch at once, the net holds %lld: "
                    "lower batch_size or allow a larger arena",
                    (long long)batch_size, (long long)net->batch);
}

/* The memory that one efl_fit needs besides the arena. */
typedef struct {
    uint32_t *order;
    float *gradient, *v, *s;
} efl_buffers;

/* The largest number of params in one node that the op itself does not update. */
static int64_t largest_transient(const efl_net *net, const efl_training *training) {
    int64_t largest = 0;
    for (int i = 0; i < net->num_steps; i++) {
        const efl_step *step = &net->steps[i];
        int64_t size = 0;
        for (int k = efl_fuses(net, step, training); k < step->node.num_params; k++)
            if (step->node.params[k] < net->num_trainable)
                size += net->offsets[step->node.params[k] + 1] - net->offsets[step->node.params[k]];
        if (step->backward && size > largest) largest = size;
    }
    return largest;
}

static int prepare(const efl_net *net, const efl_fit_options *o, int64_t n, efl_training *training,
                   efl_buffers *buffers, efl_error *error) {
    const int buffered = o->buffered || net->shares_params || o->clip_norm > 0 ||
                         (o->batch_size < n ? o->batch_size : n) > net->batch;
    const int64_t trained = efl_num_trained(net);
    const int64_t gradient = buffered ? trained : largest_transient(net, training);
    const size_t width = sizeof(float);
    const int moments = o->momentum != 0 || o->adam;
    buffers->gradient = malloc((size_t)(gradient + 1) * width);
    buffers->v = moments ? calloc((size_t)trained + 1, width) : NULL;
    buffers->s = o->adam ? calloc((size_t)trained + 1, width) : NULL;
    if (o->batch_size < n && n <= UINT32_MAX) buffers->order = malloc((size_t)n * sizeof *buffers->order);
    if (buffers->gradient == NULL || (moments && buffers->v == NULL) || (o->adam && buffers->s == NULL) ||
        (o->batch_size < n && buffers->order == NULL))
        return efl_fail(error, EFL_MEMORY, "no memory to train %lld params on %lld samples: free some or use fewer",
                        (long long)trained, (long long)n);
    training->v = buffers->v;
    training->s = buffers->s;
    if (buffered) {
        training->sgd = NULL;
        training->gradient = buffers->gradient;
    } else {
        training->transient = buffers->gradient;
    }
    return EFL_OK;
}

/* Adam's corrections in the next step: decays(2) are the betas to the power of the steps so far. */
static void set_rates(efl_sgd *sgd, const efl_fit_options *o, double *decays) {
    if (!o->adam) return;
    decays[0] *= o->momentum;
    decays[1] *= 0.999;
    sgd->unbias1 = (float)(1 / (1 - decays[0]));
    sgd->unbias2 = (float)(1 / (1 - decays[1]));
}

/* The update of the buffered path. */
static void move_params(const efl_net *net, const efl_training *training, efl_sgd *sgd, double clip_norm) {
    const int64_t trained = efl_num_trained(net);
    sgd->grad_scale = 1;
    if (clip_norm > 0) {
        const double norm = sqrt(efl_kernels->sum_squares(training->gradient, trained));
        if (norm > clip_norm) sgd->grad_scale = (float)(clip_norm / norm);
    }
    efl_kernels->sgd_step(training->w, training->v, training->s, training->gradient, training->w0, training->c, sgd,
                          trained);
}

static int cancelled(efl_error *error) {
    return efl_fail(error, EFL_CANCELLED, "it was cancelled");
}

static int fit_epochs(efl_net *net, const efl_data *data, const efl_fit_options *o, efl_training *training,
                      efl_sgd *sgd, uint32_t *order, efl_fit_result *result, efl_error *error) {
    efl_rng rng = {o->seed ^ 0x5EED};
    double decays[2] = {1, 1};
    for (int64_t epoch = 0; epoch < o->epochs; epoch++) {
        double loss = 0;
        if (order != NULL) efl_permutation(order, data->n, o->seed, (uint64_t)epoch);
        for (int64_t first = 0; first < data->n;) {
            int64_t correct = 0;
            if (o->max_steps > 0 && result->steps == o->max_steps) return EFL_OK;
            const int64_t left = data->n - first, n = left < o->batch_size ? left : o->batch_size;
            result->steps++;
            set_rates(sgd, o, decays);
            training->seed = efl_rng_next(&rng) | 1;
            loss += run_batch(net, data, order, first, n, training, &correct);
            if (efl_is_cancelled(net)) return cancelled(error);
            if (training->gradient != NULL) move_params(net, training, sgd, o->clip_norm);
            first += n;
            result->loss = loss / efl_heads_count(net, first);
        }
    }
    return EFL_OK;
}

int efl_run_fit(efl_net *net, const float *params, const efl_data *data, const efl_fit_options *options, float *local,
                efl_fit_result *result, efl_error *error) {
    efl_buffers buffers = {0};
    efl_sgd sgd = {.lr = (float)options->lr,
                   .momentum = (float)options->momentum,
                   .weight_decay = (float)options->weight_decay,
                   .prox_mu = (float)options->prox_mu,
                   .grad_scale = 1,
                   .nesterov = options->nesterov,
                   .adam = options->adam};
    efl_training training = {.sgd = &sgd, .w = local, .w0 = params, .c = options->correction};
    const int64_t batch = options->batch_size < data->n ? options->batch_size : data->n;
    efl_begin_work(net);
    *result = (efl_fit_result){0};
    if (check_data(net, data, error) != EFL_OK || check_pieces(net, batch, error) != EFL_OK) return error->code;
    int code = prepare(net, options, data->n, &training, &buffers, error);
    if (code == EFL_OK) {
        memcpy(local, params, (size_t)efl_net_num_params(net) * sizeof *params);
        net->params = local;
        code = fit_epochs(net, data, options, &training, &sgd, buffers.order, result, error);
    }
    free(buffers.order);
    free(buffers.gradient);
    free(buffers.v);
    free(buffers.s);
    return code;
}

int efl_run_gradient(efl_net *net, const float *params, const efl_data *data, float *gradient, efl_error *error) {
    int64_t correct = 0;
    efl_training training = {.gradient = gradient};
    if (check_data(net, data, error) != EFL_OK || check_pieces(net, data->n, error) != EFL_OK) return error->code;
    net->params = params;
    efl_begin_work(net);
    memset(gradient, 0, (size_t)efl_net_num_params(net) * sizeof *gradient);
    run_batch(net, data, NULL, 0, data->n, &training, &correct);
    return efl_is_cancelled(net) ? cancelled(error) : EFL_OK;
}

int efl_run_evaluate(efl_net *net, const float *params, const efl_data *data, double *loss, double *accuracy,
                     efl_error *error) {
    int64_t correct = 0;
    if (check_data(net, data, error) != EFL_OK) return error->code;
    net->params = params;
    efl_begin_work(net);
    *loss = run_batch(net, data, NULL, 0, data->n, NULL, &correct) / efl_heads_count(net, data->n);
    const efl_head *scored = efl_scored_head(net);
    *accuracy = scored != NULL ? (double)correct / ((double)data->n * (double)scored->terms) : -1;
    return efl_is_cancelled(net) ? cancelled(error) : EFL_OK;
}

int efl_run_predict(efl_net *net, const float *params, const float *x, int64_t n, float *out, efl_error *error) {
    const int64_t in = net->values[0].size, size = net->values[net->output].size;
    const efl_data data = {.x = x, .n = n};
    if (check_tokens(net, &data, error) != EFL_OK) return error->code;
    net->params = params;
    for (int64_t done = 0; done < n && !efl_is_cancelled(net); done += net->batch) {
        const int64_t batch = n - done < net->batch ? n - done : net->batch;
        memcpy(net->values[0].data, x + done * in, (size_t)(batch * in) * sizeof *x);
        efl_forward(net, batch, 0, NULL);
        memcpy(out + done * size, efl_memory(net, net->output)->data, (size_t)(batch * size) * sizeof *out);
    }
    return efl_is_cancelled(net) ? cancelled(error) : EFL_OK;
}

int efl_all_finite(const float *x, int64_t n) {
    return efl_kernels->all_finite(x, n);
}
