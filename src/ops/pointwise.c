/* pointwise.c: the further functions of one number. Attributes, and what backward reads:
 *
 *     leaky_relu  floats alpha >= 0          y     gelu      ints approximate_tanh   x
 *     clip        floats min, max            y     hard_swish, erf, log, abs         x
 *     hard_sigmoid  floats alpha, beta       y     pow       floats exponent         x
 *     elu         floats alpha >= 0          y     sqrt, exp, softplus               y
 *     threshold   floats threshold, value    x     mish, sin, cos                    x
 *     shrink      floats lambda >= 0, bias   x
 *
 * If backward reads y alone, x may be overwritten. At a kink the slope is that of the flat side.
 */
#include "bits.h"

#include <math.h>

static int infer(efl_op_shapes *s, efl_pointwise kind, efl_error *error) {
    const efl_node *node = s->node;
    for (int i = 0; i < node->num_floats; i++)
        if (!isfinite((float)node->floats[i])) return efl_fail(error, EFL_MODEL, "has an attribute that is not finite");
    if (kind == EFL_POINT_SHRINK && node->floats[0] < 0)
        return efl_fail(error, EFL_MODEL, "needs a lambda of 0 or more");
    if ((kind == EFL_POINT_LEAKY_RELU || kind == EFL_POINT_ELU) && node->floats[0] < 0)
        return efl_fail(error, EFL_MODEL, "needs an alpha of 0 or more");
    if (kind == EFL_POINT_CLIP && node->floats[0] > node->floats[1])
        return efl_fail(error, EFL_MODEL, "needs a min that is not above max");
    if (kind == EFL_POINT_GELU && node->ints[0] != 0 && node->ints[0] != 1)
        return efl_fail(error, EFL_MODEL, "needs 0 or 1 for the approximation");
    if (kind == EFL_POINT_GELU && node->ints[0] == 1) kind = EFL_POINT_GELU_TANH;
    s->y = s->x[0];
    s->flops = efl_shape_size(&s->y);
    s->inner[0] = kind;
    return EFL_OK;
}

static int64_t elements(const efl_op_run *run) {
    return run->batch * efl_shape_size(&run->shapes->y);
}

static void forward(const efl_op_run *run) {
    const double *floats = run->shapes->node->floats;
    for (int64_t i = 0, n; (n = efl_piece(run, i, elements(run), 1)) > 0; i += n)
        efl_kernels->pointwise((efl_pointwise)run->shapes->inner[0], run->y + i, run->x[0] + i, (float)floats[0],
                               (float)floats[1], n);
    if (run->bits != NULL) efl_bits_keep(run, (float)floats[0], (float)floats[1]);
}

static void backward_from(const efl_op_run *run, const float *v) {
    const double *floats = run->shapes->node->floats;
    for (int64_t i = 0, n; (n = efl_piece(run, i, elements(run), 1)) > 0; i += n)
        efl_kernels->pointwise_backward((efl_pointwise)run->shapes->inner[0], run->dx[0] + i, run->dy + i, v + i,
                                        (float)floats[0], (float)floats[1], n);
}

static void backward_from_x(const efl_op_run *run) {
    backward_from(run, run->x[0]);
}

static void backward_from_y(const efl_op_run *run) {
    if (run->bits != NULL)
        efl_bits_backward(run);
    else
        backward_from(run, run->y);
}

#define EFL_FROM_X(lower, upper, ints, floats) EFL_POINTWISE(lower, upper, ints, floats, EFL_READS_X, backward_from_x)
#define EFL_FROM_Y(lower, upper, ints, floats)                                             \
    EFL_POINTWISE(lower, upper, ints, floats, EFL_IN_PLACE | EFL_READS_Y, backward_from_y)
#define EFL_FROM_BITS(lower, upper, ints, floats)                                                     \
    EFL_POINTWISE(lower, upper, ints, floats, EFL_IN_PLACE | EFL_READS_Y | EFL_BITS, backward_from_y)
#define EFL_POINTWISE(lower, upper, ints, floats, needs, direction) \
    static int infer_##lower(efl_op_shapes *s, efl_error *error) {  \
        return infer(s, EFL_POINT_##upper, error);                  \
    }                                                               \
    const efl_op efl_op_##lower = {.name = #lower,                  \
                                   .flags = needs | EFL_BY_SAMPLES, \
                                   .min_inputs = 1,                 \
                                   .max_inputs = 1,                 \
                                   .num_ints = ints,                \
                                   .num_floats = floats,            \
                                   .infer = infer_##lower,          \
                                   .forward = forward,              \
                                   .backward = direction};

EFL_FROM_Y(leaky_relu, LEAKY_RELU, 0, 1)
EFL_FROM_BITS(clip, CLIP, 0, 2)
EFL_FROM_Y(hard_sigmoid, HARD_SIGMOID, 0, 2)
EFL_FROM_X(hard_swish, HARD_SWISH, 0, 0)
EFL_FROM_X(gelu, GELU, 1, 0)
EFL_FROM_X(erf, ERF, 0, 0)
EFL_FROM_Y(sqrt, SQRT, 0, 0)
EFL_FROM_Y(exp, EXP, 0, 0)
EFL_FROM_X(log, LOG, 0, 0)
EFL_FROM_X(pow, POW, 0, 1)
EFL_FROM_X(abs, ABS, 0, 0)
EFL_FROM_Y(elu, ELU, 0, 1)
EFL_FROM_Y(softplus, SOFTPLUS, 0, 0)
EFL_FROM_X(mish, MISH, 0, 0)
EFL_FROM_X(threshold, THRESHOLD, 0, 2)
EFL_FROM_X(shrink, SHRINK, 0, 2)
EFL_FROM_X(sin, SIN, 0, 0)
EFL_FROM_X(cos, COS, 0, 0)
