/* arithmetic.c: add, sub, mul, div, max, min of two values, or of one value and one param, under NumPy's broadcasting.
 *
 * Inputs: x and y, or x and a param w whose shape broadcasts to x's. Ints: [reversed], by default 0; 1: y op x.
 * The axis of samples is never broadcast. A gradient has the result's shape first, and is summed to its operand's.
 */
#include "walk.h"

#include <string.h>

enum { OP, REVERSED, BROADCASTS }; /* inner */

/* The second operand: a value or a param. */
static const efl_shape *second_shape(const efl_op_shapes *s) {
    return s->node->num_inputs == 2 ? &s->x[1] : &s->w[0];
}

static const efl_shape *shape_of(const efl_op_shapes *s, int which) {
    return which == 0 ? &s->x[0] : second_shape(s);
}

static int same_shape(const efl_shape *a, const efl_shape *b) {
    return a->ndim == b->ndim && memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof a->dim[0]) == 0;
}

/* 0 if the shapes don't broadcast together. */
static int broadcast(efl_shape *y, const efl_shape *a, const efl_shape *b) {
    *y = a->ndim >= b->ndim ? *a : *b;
    for (int i = 1; i <= a->ndim && i <= b->ndim; i++) {
        const int64_t left = a->dim[a->ndim - i], right = b->dim[b->ndim - i];
        if (left != right && left != 1 && right != 1) return 0;
        y->dim[y->ndim - i] = left == 1 ? right : left;
    }
    return 1;
}

/* Two values, each with an element for each of the result's. */
static int adds_alike(const efl_op_shapes *s) {
    const int64_t size = efl_shape_size(&s->y);
    return s->node->num_inputs == 2 && efl_shape_size(&s->x[0]) == size && efl_shape_size(&s->x[1]) == size;
}

static int infer(efl_op_shapes *s, efl_arithmetic op, efl_error *error) {
    const efl_node *node = s->node;
    const efl_shape *a = &s->x[0], *b = second_shape(s);
    if (node->num_inputs + node->num_params != 2)
        return efl_fail(error, EFL_MODEL, "needs two values, or one and a param");
    if (node->num_ints > 1 || (node->num_ints == 1 && node->ints[0] != 0 && node->ints[0] != 1))
        return efl_fail(error, EFL_MODEL, "needs 0 or 1 for its order");
    if (!broadcast(&s->y, a, b)) return efl_fail(error, EFL_MODEL, "needs inputs of shapes that broadcast");
    if (efl_shape_size(&s->y) < 0) return efl_fail(error, EFL_MODEL, "makes a value that is too large");
    if (node->num_params == 1 && !same_shape(&s->y, a))
        return efl_fail(error, EFL_MODEL, "needs a param that broadcasts to its input's shape");
    s->flops = efl_shape_size(&s->y);
    s->inner[OP] = op;
    s->inner[REVERSED] = node->num_ints == 1 && node->ints[0] == 1;
    s->inner[BROADCASTS] = node->num_params == 1 || !same_shape(a, b);
    if (op == EFL_ADD && adds_alike(s)) s->clamps = EFL_READS_Y;
    if (op != EFL_ADD && op != EFL_SUB) s->sums.per_sample = s->flops * s->inner[BROADCASTS];
    return EFL_OK;
}

static int64_t elements(const efl_op_run *run) {
    return run->batch * efl_shape_size(&run->shapes->y);
}

/* y = a op b, all of y's shape but for the operands `a_shape` and `b_shape` describe. */
static void apply(const efl_op_run *run, efl_arithmetic op, float *y, const float *a, const efl_shape *a_shape,
                  int a_sampled, const float *b, const efl_shape *b_shape, int b_sampled) {
    efl_walk walk = efl_walk_over(run->batch, &run->shapes->y);
    efl_walk_array(&walk, &run->shapes->y, 1);
    efl_walk_array(&walk, a_shape, a_sampled);
    efl_walk_array(&walk, b_shape, b_sampled);
    efl_walk_pack(&walk);
    const int row = walk.ndim - 2, col = walk.ndim - 1;
    do {
        efl_kernels->arithmetic(op, y + walk.at[0], a + walk.at[1], walk.step[1][row], walk.step[1][col],
                                b + walk.at[2], walk.step[2][row], walk.step[2][col], walk.m, walk.n);
    } while (efl_walk_next(&walk));
}

static void forward(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    const efl_shape *second = second_shape(s);
    const int sampled = s->node->num_inputs == 2;
    const float *b = sampled ? run->x[1] : run->w[0];
    if (run->clamp != NULL)
        efl_kernels->add_limited(run->y, run->x[0], b, run->clamp, elements(run));
    else if (s->inner[REVERSED])
        apply(run, (efl_arithmetic)s->inner[OP], run->y, b, second, sampled, run->x[0], &s->x[0], 1);
    else
        apply(run, (efl_arithmetic)s->inner[OP], run->y, run->x[0], &s->x[0], 1, b, second, sampled);
}

/* to = from, or -from */
static void pass(const efl_op_run *run, float *to, const float *from, int negative) {
    const float minus = -1;
    if (negative)
        efl_kernels->arithmetic(EFL_MUL, to, from, 0, 1, &minus, 0, 0, 1, elements(run));
    else if (to != from)
        memcpy(to, from, (size_t)elements(run) * sizeof *to);
}

/* The gradient of operand `which` at y's shape into g, which may be dy for add and sub. */
static void slope(const efl_op_run *run, int which, float *g) {
    const efl_op_shapes *s = run->shapes;
    const efl_arithmetic op = (efl_arithmetic)s->inner[OP];
    const int right = which != (int)s->inner[REVERSED], sampled = s->node->num_inputs == 2;
    const float *operands[2] = {run->x[0], sampled ? run->x[1] : run->w[0]};
    const int other = 1 - which, sampled_of[2] = {1, sampled};
    if (op == EFL_ADD || op == EFL_SUB) {
        pass(run, g, run->dy, op == EFL_SUB && right);
    } else if (op == EFL_MAX || op == EFL_MIN) { /* to the larger, the smaller; half each where they are equal */
        const int more = op == EFL_MAX ? which : other, less = 1 - more;
        apply(run, EFL_STEP, g, operands[more], shape_of(s, more), sampled_of[more], operands[less], shape_of(s, less),
              sampled_of[less]);
        apply(run, EFL_MUL, g, g, &s->y, 1, run->dy, &s->y, 1);
    } else if (op == EFL_MUL || !right) { /* d(l r)/dl = r, d(l / r)/dl = 1 / r */
        apply(run, op, g, run->dy, &s->y, 1, operands[other], shape_of(s, other), sampled_of[other]);
    } else { /* d(l / r)/dr = -(l / r) / r */
        apply(run, EFL_DIV, g, run->dy, &s->y, 1, operands[which], shape_of(s, which), sampled_of[which]);
        apply(run, EFL_DIV, g, g, &s->y, 1, operands[which], shape_of(s, which), sampled_of[which]);
        apply(run, EFL_MUL, g, g, &s->y, 1, operands[other], shape_of(s, other), sampled_of[other]);
        pass(run, g, g, 1);
    }
}

/* += the gradient of operand `which`, summed over what was broadcast. */
static void reduce(const efl_op_run *run, int which, float *to, int sampled) {
    const efl_op_shapes *s = run->shapes;
    const int linear = s->inner[OP] == EFL_ADD || s->inner[OP] == EFL_SUB;
    const int negative = s->inner[OP] == EFL_SUB && which != (int)s->inner[REVERSED];
    const efl_shape *shape = shape_of(s, which);
    const int64_t size = (sampled ? run->batch : 1) * efl_shape_size(shape);
    const float minus = -1;
    efl_walk walk = efl_walk_over(run->batch, &s->y);
    efl_walk_array(&walk, shape, sampled);
    efl_walk_array(&walk, &s->y, 1);
    efl_walk_pack(&walk);
    if (!linear) slope(run, which, run->scratch);
    /* A sum of dy needs no array of -dy: the sign is turned before and after. */
    if (negative) efl_kernels->arithmetic(EFL_MUL, to, to, 0, 1, &minus, 0, 0, 1, size);
    efl_walk_sum(&walk, to, linear ? run->dy : run->scratch);
    if (negative) efl_kernels->arithmetic(EFL_MUL, to, to, 0, 1, &minus, 0, 0, 1, size);
}

/* One of them is there, and the first may be dy. */
static void backward_limited(const efl_op_run *run) {
    float *first = run->dx[0] != NULL ? run->dx[0] : run->dx[1], *second = run->dx[0] != NULL ? run->dx[1] : NULL;
    efl_kernels->add_limited_backward(first, second, run->dy, run->y, run->clamp, elements(run));
}

/* dx[0] last: it may be dy. */
static void backward(const efl_op_run *run) {
    const efl_op_shapes *s = run->shapes;
    if (run->clamp != NULL) {
        backward_limited(run);
        return;
    }
    if (run->dw[0] != NULL) reduce(run, 1, run->dw[0], 0);
    for (int k = s->node->num_inputs - 1; k >= 0; k--) {
        if (run->dx[k] == NULL) continue;
        if (efl_shape_size(&s->x[k]) == efl_shape_size(&s->y)) { /* the same but for axes of one */
            slope(run, k, run->dx[k]);
        } else {
            memset(run->dx[k], 0, (size_t)(run->batch * efl_shape_size(&s->x[k])) * sizeof(float));
            reduce(run, k, run->dx[k], 1);
        }
    }
}

#define EFL_ARITHMETIC(lower, upper, needs)                         \
    static int infer_##lower(efl_op_shapes *s, efl_error *error) {  \
        return infer(s, EFL_##upper, error);                        \
    }                                                               \
    const efl_op efl_op_##lower = {.name = #lower,                  \
                                   .flags = needs | EFL_BY_SAMPLES, \
                                   .min_inputs = 1,                 \
                                   .max_inputs = 2,                 \
                                   .max_params = 1,                 \
                                   .num_ints = -1,                  \
                                   .infer = infer_##lower,          \
                                   .forward = forward,              \
                                   .backward = backward};

EFL_ARITHMETIC(add, ADD, EFL_IN_PLACE)
EFL_ARITHMETIC(sub, SUB, EFL_IN_PLACE)
EFL_ARITHMETIC(mul, MUL, EFL_IN_PLACE | EFL_READS_X | EFL_X_FOR_W)
EFL_ARITHMETIC(div, DIV, EFL_READS_X)
EFL_ARITHMETIC(max, MAX, EFL_READS_X)
EFL_ARITHMETIC(min, MIN, EFL_READS_X)
