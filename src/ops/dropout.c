/* dropout.c: in training, zero for a share `ratio` of the values and 1 / (1 - ratio) times the others. Floats: ratio.
 *
 * No mask is kept: backward draws it again from the same seed. A sample's mask depends on its index in the batch, and
 * not on the pieces into which the batch is cut. */
#include "ops.h"

#include <string.h>

static int infer(efl_op_shapes *s, efl_error *error) {
    const double ratio = s->node->floats[0];
    if (!(ratio >= 0 && ratio <= 0.999)) return efl_fail(error, EFL_MODEL, "needs a ratio of 0 to 0.999");
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    return EFL_OK;
}

static void mask(const efl_op_run *run, float *to, const float *from) {
    const int64_t size = efl_shape_size(&run->shapes->y);
    const float ratio = (float)run->shapes->node->floats[0];
    if (run->seed == 0) {
        if (to != from) memcpy(to, from, (size_t)(run->batch * size) * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < run->batch; i++) {
        const uint64_t key = (run->seed + (uint64_t)(run->first + i)) * 0xD1342543DE82EF95u;
        efl_kernels->dropout(to + i * size, from + i * size, key ^ key >> 32, ratio, size);
    }
}

static void forward(const efl_op_run *run) {
    mask(run, run->y, run->x[0]);
}

static void backward(const efl_op_run *run) {
    mask(run, run->dx[0], run->dy);
}

const efl_op efl_op_dropout = {.name = "dropout",
                               .flags = EFL_IN_PLACE | EFL_BY_SAMPLES,
                               .min_inputs = 1,
                               .max_inputs = 1,
                               .num_floats = 1,
                               .infer = infer,
                               .forward = forward,
                               .backward = backward};
