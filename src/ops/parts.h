/* parts.h: an op's work in parts, for several threads.
 *
 * Design:
 *   a) The parts depend on shapes and the batch alone, never on the number of threads: one thread does the same parts
 *      one after another. So any number of threads gives the same bits.
 *   b) A part writes a share of the outputs. Where a sum is what is asked for, each part adds up its own share into
 *      memory of its own, and the shares are added in the order of the parts.
 *   c) Work that is too short to be shared out is one part. Inside a part nothing is split again.
 *   d) Parts look at run->stop as pieces do (pieces.h), and none begins once it is set.
 *
 * Most ops need only the flag EFL_BY_SAMPLES, and run.c splits them.
 */
#ifndef EFL_PARTS_H
#define EFL_PARTS_H

#include "ops.h"

enum { EFL_MOST_PARTS = 8 };

typedef struct {
    int64_t part, count;
    int slot; /* the thread's number, for memory of its own */
} efl_share;

/* `run` is the op's, to be split no further. */
typedef void efl_part(const efl_op_run *run, efl_share share, const void *context);

/* How many parts for work that is worth so many floating-point operations, at most `most`. An element that is read or
 * written and no more counts as EFL_ELEMENT of them. */
int64_t efl_parts(const efl_op_run *run, double operations, int64_t most);
#define EFL_ELEMENT 16

/* Does them all; a single one with the op's own run, as if there were no parts. */
void efl_parallel(const efl_op_run *run, int64_t count, efl_part *part, const void *context);

/* Where part i of `count` begins in `total`: at a multiple of `step`, or the end. */
static inline int64_t efl_part_start(int64_t total, int64_t count, int64_t i, int64_t step) {
    return i == count ? total : total * i / count / step * step;
}

/* The run for samples `from` to before `to` of an op whose memory is all per sample. */
efl_op_run efl_samples(const efl_op_run *run, int64_t from, int64_t to);
static inline efl_op_run efl_samples_of(const efl_op_run *run, efl_share s) {
    return efl_samples(run, efl_part_start(run->batch, s.count, s.part, 1),
                       efl_part_start(run->batch, s.count, s.part + 1, 1));
}
/* Operations of the whole op forward, the traffic of its values included. */
double efl_operations(const efl_op_run *run);

/* A thread's own scratch: at `first` for slot 0, for the others apart. An op that has such says so in its shapes'
 * `own`. */
float *efl_room_of(const efl_op_run *run, int slot, float *first);

/* op->forward and op->backward, in parts if the op may be split by samples. */
void efl_forward_in_parts(const efl_op *op, const efl_op_run *run);
void efl_backward_in_parts(const efl_op *op, const efl_op_run *run);

#endif
