/* heads.c: what a net is trained on: its losses, and the labels or targets that they compare its values with.
 *
 * A net with one loss takes y as int64 labels or float32 targets. With several, y is float32, one row a sample, with
 * columns for one head after another: as many as it has targets, or one for each label. Labels are checked before the
 * work begins. Each is read once more when it is copied into the arena, and is made a class of the model there if a
 * caller has changed it since. So the losses read no index that was not checked, and reading it costs nothing.
 *
 * Not here: what a loss computes (ops/loss.c).
 */
#include "net.h"
#include "ops/pieces.h"

#include <math.h>
#include <string.h>

static int make_head(const efl_net *net, const char *name, int input, efl_head *head, efl_error *error) {
    const efl_shape *shape = &net->values[input].shape;
    head->kind = efl_loss_find(name);
    if (head->kind == NULL) return efl_fail(error, EFL_MODEL, "plan: unknown loss %.30s; " EFL_PLAN_HINT, name);
    if (head->kind->takes_labels && shape->ndim < 1)
        return efl_fail(error, EFL_MODEL, "plan: loss %s needs an axis of classes, the last; " EFL_PLAN_HINT, name);
    head->input = input;
    head->size = head->kind->takes_labels ? shape->dim[shape->ndim - 1] : net->values[input].size;
    head->rows = net->values[input].size / head->size;
    head->terms = head->kind->takes_labels ? head->rows : head->size;
    return EFL_OK;
}

int efl_heads_make(efl_net *net, const efl_plan *plan, efl_error *error) {
    net->num_heads = plan->num_losses == 0 ? 1 : plan->num_losses;
    if (plan->num_losses == 0) {
        net->heads[0].weight = 1;
        return make_head(net, plan->loss, plan->loss_input, &net->heads[0], error);
    }
    for (int h = 0; h < plan->num_losses; h++) {
        const efl_plan_loss *loss = &plan->losses[h];
        efl_head *head = &net->heads[h];
        if (!(loss->weight > 0 && loss->weight <= 1e6))
            return efl_fail(error, EFL_MODEL, "plan: loss %d has a weight that is not within 0 to 1e6; " EFL_PLAN_HINT,
                            h);
        if (make_head(net, loss->name, loss->input, head, error) != EFL_OK) return error->code;
        head->weight = loss->weight;
        head->column = net->num_columns;
        net->num_columns += head->terms; /* 8 of at most 2^30 */
    }
    return EFL_OK;
}

int efl_heads_apart(const efl_net *net, efl_error *error) {
    for (int h = 1; h < net->num_heads; h++)
        for (int k = 0; k < h; k++)
            if (net->values[net->heads[h].input].storage == net->values[net->heads[k].input].storage)
                return efl_fail(error, EFL_MODEL, "plan: losses %d and %d read the same value; " EFL_PLAN_HINT, k, h);
    return EFL_OK;
}

/* The only reads of y while the net works: each is one load, which the compiler may not repeat. */
static int64_t class_of(const volatile int64_t *label, int64_t classes) {
    const int64_t given = *label;
    return given >= 0 && given < classes ? given : 0;
}

static int64_t class_in(const volatile float *label, int64_t classes) {
    const float given = *label;
    return given >= 0 && given < (float)classes ? (int64_t)given : 0;
}

void efl_heads_gather(efl_net *net, const efl_data *data, int64_t sample, int64_t i) {
    for (int h = 0; h < net->num_heads; h++) {
        const efl_head *head = &net->heads[h];
        const int64_t columns = net->num_columns ? net->num_columns : head->terms;
        const float *targets = data->targets == NULL ? NULL : data->targets + sample * columns + head->column;
        if (!head->kind->takes_labels) {
            memcpy(head->targets + i * head->terms, targets, (size_t)head->terms * sizeof *targets);
            continue;
        }
        int64_t *labels = head->labels + i * head->rows;
        for (int64_t r = 0; r < head->rows; r++)
            labels[r] = targets == NULL ? class_of(data->labels + sample * head->rows + r, head->size)
                                        : class_in(targets + r, head->size);
    }
}

/* The label of a column of numbers; -1 if it is no whole number. */
static int64_t whole(float number) {
    return number >= 0 && number < 0x1p24f && number == floorf(number) ? (int64_t)number : -1;
}

static int check_head(const efl_net *net, const efl_head *head, const efl_data *data, efl_error *error) {
    for (int64_t i = 0; i < data->n * head->rows; i++) {
        const int64_t row = efl_row(data, i / head->rows), r = i % head->rows;
        if (data->targets == NULL) {
            const int64_t label = data->labels[row * head->rows + r];
            if (label < 0 || label >= head->size)
                return efl_fail(error, EFL_DATA,
                                "label %lld of sample %lld is out of range 0..%lld: map the labels to the model's "
                                "classes",
                                (long long)label, (long long)(i / head->rows), (long long)head->size - 1);
            continue;
        }
        const float number = data->targets[row * net->num_columns + head->column + r];
        const int64_t label = whole(number);
        if (label < 0 || label >= head->size)
            return efl_fail(error, EFL_DATA,
                            "%.9g in column %lld of y, sample %lld, is no label 0..%lld: map the labels to the "
                            "model's classes",
                            (double)number, (long long)(head->column + r), (long long)(i / head->rows),
                            (long long)head->size - 1);
    }
    return EFL_OK;
}

int efl_heads_check(const efl_net *net, const efl_data *data, efl_error *error) {
    for (int h = 0; h < net->num_heads; h++)
        if (net->heads[h].kind->takes_labels && check_head(net, &net->heads[h], data, error) != EFL_OK)
            return error->code;
    return EFL_OK;
}

/* The summed loss of the rows, in pieces. */
static double run_loss(efl_net *net, const efl_head *head, efl_loss_run run, int64_t *correct) {
    const int64_t rows = run.rows, most = EFL_PIECE_ELEMENTS / run.size + 1;
    double loss = 0;
    for (int64_t done = 0; done < rows && !efl_is_cancelled(net); done += run.rows) {
        run.rows = rows - done < most ? rows - done : most;
        run.correct = 0;
        loss += head->kind->run(&run);
        *correct += run.correct;
        run.logits += run.rows * run.size;
        run.dlogits = run.dlogits == NULL ? NULL : run.dlogits + run.rows * run.size;
        if (head->kind->takes_labels)
            run.labels += run.rows;
        else
            run.targets += run.rows * run.size;
    }
    return loss;
}

double efl_heads_run(efl_net *net, int64_t batch, int64_t n, int training, int64_t *correct) {
    double loss = 0;
    for (int h = 0; h < net->num_heads; h++) {
        const efl_head *head = &net->heads[h];
        const efl_value *logits = efl_memory(net, head->input);
        const efl_loss_run run = {.rows = batch * head->rows,
                                  .size = head->size,
                                  .logits = logits->data,
                                  .labels = head->labels,
                                  .targets = head->targets,
                                  .dlogits = training ? logits->gradient : NULL,
                                  .scale = (float)(head->weight / ((double)n * (double)head->terms))};
        int64_t right = 0;
        const double sum = run_loss(net, head, run, &right);
        loss += net->num_heads == 1 ? sum : head->weight * (sum / (double)head->terms);
        if (head == efl_scored_head(net)) *correct += right;
    }
    return loss;
}

double efl_heads_count(const efl_net *net, int64_t n) {
    return (double)n * (net->num_heads == 1 ? (double)net->heads[0].terms : 1);
}

const efl_head *efl_scored_head(const efl_net *net) {
    for (int h = 0; h < net->num_heads; h++)
        if (net->heads[h].kind->has_accuracy) return &net->heads[h];
    return NULL;
}
