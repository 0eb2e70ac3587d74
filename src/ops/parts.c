/* parts.c: see parts.h. */
#include "parts.h"

#include "../threads.h"
#include "pieces.h"

/* What a part is at least worth: about 8 us of a large core, 100 us of a small one. To share out work among threads
 * that look out for it takes 1 us; to wake one that sleeps, 5 to 30 us, in which the caller does its parts. */
#ifndef EFL_PART /* `make sanitize` has small ones */
#define EFL_PART ((double)(1 << 20))
#endif

_Static_assert((int)EFL_MOST_PARTS < (int)EFL_POOL_PARTS, "a part more than these, for the gradient of a bias");

/* A power of two, which as many threads share evenly. */
int64_t efl_parts(const efl_op_run *run, double operations, int64_t most) {
    int64_t parts = 1;
    if (run->in_part) return 1;
    if (most > EFL_MOST_PARTS) most = EFL_MOST_PARTS;
    while (2 * parts <= most && (double)(2 * parts) * EFL_PART <= operations) parts *= 2;
    return parts;
}

typedef struct {
    efl_op_run run;
    int64_t count;
    efl_part *part;
    const void *context;
} job;

static void do_part(void *argument, int slot, int i) {
    const job *j = argument;
    if (!efl_stopped(&j->run)) j->part(&j->run, (efl_share){i, j->count, slot}, j->context);
}

void efl_parallel(const efl_op_run *run, int64_t count, efl_part *part, const void *context) {
    if (count == 1) {
        part(run, (efl_share){0, 1, 0}, context);
        return;
    }
    job all = {*run, count, part, context};
    all.run.in_part = 1;
    if (run->pool != NULL) {
        efl_pool_run(run->pool, (int)count, do_part, &all);
        return;
    }
    for (int i = 0; i < count; i++) do_part(&all, 0, i);
}

efl_op_run efl_samples(const efl_op_run *run, int64_t from, int64_t to) {
    const efl_op_shapes *s = run->shapes;
    const int64_t y = efl_shape_size(&s->y);
    efl_op_run part = *run;
    part.batch = to - from;
    part.first += from;
    part.y = run->y + from * y;
    part.dy = run->dy == NULL ? NULL : run->dy + from * y;
    for (int k = 0; k < s->node->num_inputs; k++) {
        const int64_t size = efl_shape_size(&s->x[k]);
        part.x[k] = run->x[k] + from * size;
        part.dx[k] = run->dx[k] == NULL ? NULL : run->dx[k] + from * size;
    }
    if (s->saved.per_sample > 0) part.saved = run->saved + from * s->saved.per_sample;
    if (run->bits != NULL) part.bits = run->bits + from * s->saved.per_sample;
    const int64_t room = s->scratch.per_sample + s->sums.per_sample;
    if (run->scratch != NULL) part.scratch = run->scratch + from * room;
    return part;
}

double efl_operations(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    double elements = (double)efl_shape_size(&s->y);
    for (int k = 0; k < s->node->num_inputs; k++) elements += (double)efl_shape_size(&s->x[k]);
    return (double)run->batch * ((double)s->flops + EFL_ELEMENT * elements);
}

float *efl_room_of(const efl_op_run *run, int slot, float *first) {
    return slot == 0 ? first : run->rooms + (slot - 1) * run->room;
}

/* The samples of a part, and the scratch of the thread that computes it. */
static efl_op_run part_of(const efl_op_run *run, efl_share share) {
    efl_op_run part = efl_samples_of(run, share);
    if (run->shapes->own > 0) part.scratch = efl_room_of(run, share.slot, run->scratch);
    return part;
}

/* Ops that are split here only go through their values, of which each thread has those of its samples in its core's
 * cache. Were such an op one part, the caller would fetch the others' values from there, and they from the caller's at
 * the op after it. So a part of them may be worth less. */
static int64_t parts_by_samples(const efl_op_run *run) {
    enum { LESS = 4 };
    return efl_parts(run, LESS * efl_operations(run), run->batch);
}

static void forward_part(const efl_op_run *run, efl_share share, const void *context) {
    const efl_op *op = context;
    const efl_op_run part = part_of(run, share);
    op->forward(&part);
}

void efl_forward_in_parts(const efl_op *op, const efl_op_run *run) {
    const int64_t parts = op->flags & EFL_BY_SAMPLES ? parts_by_samples(run) : 1;
    if (parts == 1)
        op->forward(run);
    else
        efl_parallel(run, parts, forward_part, op);
}

static void backward_part(const efl_op_run *run, efl_share share, const void *context) {
    const efl_op *op = context;
    const efl_op_run part = part_of(run, share);
    op->backward(&part);
}

/* A gradient of params is a sum over samples, which the op itself may split. */
static int sums_up(const efl_op_run *run) {
    int sums = run->update != NULL;
    for (int k = 0; k < run->shapes->node->num_params; k++) sums |= run->dw[k] != NULL;
    return sums;
}

void efl_backward_in_parts(const efl_op *op, const efl_op_run *run) {
    const int splits = op->flags & EFL_BY_SAMPLES && !sums_up(run);
    const int64_t parts = splits ? parts_by_samples(run) : 1;
    if (parts == 1)
        op->backward(run);
    else
        efl_parallel(run, parts, backward_part, op);
}
