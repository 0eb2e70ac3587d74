/* along.c: ops that read one axis at other places, y[i] = (1 - f) x[a] + f x[b] for each i along it. Axes are those of
 * a sample; backward adds the same shares to dx. Ints (and floats):
 *     resize   axis, size, mode, coordinates, rounding; [scale]    extend   axis, before, after, mode
 *     stride   axis, start, step, size
 *
 * resize follows ONNX's Resize: mode 0 nearest, 1 linear; coordinates and rounding are the enums below. As in
 * onnxruntime, places are float32. extend pads by mode 0 reflection, 1 the edge, 2 the other end. stride is a slice
 * with steps, which may be negative.
 */
#include "pieces.h"

#include <math.h>
#include <string.h>

enum { LONGEST = 1 << 24 }; /* whole numbers up to here are exact in float32 */
enum { AXIS, SIZE, MODE, COORDINATES, ROUNDING };
enum { NEAREST, LINEAR };
enum { HALF_PIXEL, ASYMMETRIC, PYTORCH_HALF_PIXEL, ALIGN_CORNERS, TF_HALF_PIXEL, SYMMETRIC, COORDINATE_RULES };
enum { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL, ROUNDING_RULES };
enum { REFLECT, EDGE, WRAP };

/* Where y's element i reads: between two places, the part behind the point is the share of the next one. */
typedef float place_of(const efl_op_shapes *s, int64_t i);

static int shape_along(efl_op_shapes *s, int64_t size, efl_error *error) {
    const efl_shape *x = &s->x[0];
    const int64_t axis = s->node->ints[AXIS];
    if (axis < 0 || axis >= x->ndim || x->dim[axis] > LONGEST)
        return efl_fail(error, EFL_MODEL, "needs an axis of its input, of at most 2^24");
    if (size < 1 || size > LONGEST) return efl_fail(error, EFL_MODEL, "makes an axis that is not 1 to 2^24 long");
    s->y = *x;
    s->y.dim[axis] = size;
    if (efl_shape_size(&s->y) < 0) return efl_fail(error, EFL_MODEL, "makes a value that is too large");
    s->scratch.fixed = s->own = size;
    s->flops = 2 * efl_shape_size(&s->y);
    return EFL_OK;
}

static int infer_resize(efl_op_shapes *s, efl_error *error) {
    const int64_t *ints = s->node->ints;
    const double scale = s->node->floats[0];
    if (ints[MODE] < 0 || ints[MODE] > LINEAR || ints[COORDINATES] < 0 || ints[COORDINATES] >= COORDINATE_RULES ||
        ints[ROUNDING] < 0 || ints[ROUNDING] >= ROUNDING_RULES)
        return efl_fail(error, EFL_MODEL, "needs mode 0 or 1, coordinates 0 to 5, rounding 0 to 3");
    if (!(scale >= 1.0 / LONGEST && scale <= LONGEST))
        return efl_fail(error, EFL_MODEL, "needs a scale of 2^-24 to 2^24");
    return shape_along(s, ints[SIZE], error);
}

static int infer_extend(efl_op_shapes *s, efl_error *error) {
    const int64_t *ints = s->node->ints, axis = ints[AXIS], before = ints[1], after = ints[2], mode = ints[3];
    if (before < 0 || before > LONGEST || after < 0 || after > LONGEST || mode < 0 || mode > WRAP)
        return efl_fail(error, EFL_MODEL, "needs pads of 0 to 2^24 and mode 0 to 2");
    if (axis < 0 || axis >= s->x[0].ndim) return efl_fail(error, EFL_MODEL, "needs an axis of its input");
    const int64_t x = s->x[0].dim[axis], most = mode == REFLECT ? x - 1 : mode == WRAP ? x : LONGEST;
    if (before > most || after > most) return efl_fail(error, EFL_MODEL, "needs pads shorter than the axis");
    return shape_along(s, before + x + after, error);
}

static int infer_stride(efl_op_shapes *s, efl_error *error) {
    const int64_t *ints = s->node->ints, axis = ints[AXIS], start = ints[1], step = ints[2], size = ints[3];
    if (shape_along(s, size, error) != EFL_OK) return error->code;
    const int64_t x = s->x[0].dim[axis];
    if (step < -LONGEST || step > LONGEST || start < 0 || start >= x || start + (size - 1) * step < 0 ||
        start + (size - 1) * step >= x)
        return efl_fail(error, EFL_MODEL, "reaches beyond its input's axis");
    return EFL_OK;
}

/* The place in x that y's i stands at, between its pixels. */
static float original(const efl_op_shapes *s, int64_t i) {
    const int64_t axis = s->node->ints[AXIS], from = s->x[0].dim[axis], to = s->y.dim[axis];
    const float scale = (float)s->node->floats[0], at = (float)i, half = (at + 0.5f) / scale;
    switch (s->node->ints[COORDINATES]) {
    case ASYMMETRIC: return at / scale;
    case PYTORCH_HALF_PIXEL: return to > 1 ? half - 0.5f : 0;
    case ALIGN_CORNERS: return to > 1 ? at * (float)(from - 1) / (float)(to - 1) : 0;
    case TF_HALF_PIXEL: return half;
    case SYMMETRIC: return (float)from / 2 * (1 - (float)to / (scale * (float)from)) + half - 0.5f;
    default: return half - 0.5f;
    }
}

static float rounded(int64_t rule, float place) {
    switch (rule) {
    case PREFER_FLOOR: return ceilf(place - 0.5f);
    case PREFER_CEIL: return roundf(place);
    case FLOOR: return floorf(place);
    default: return ceilf(place);
    }
}

static float resize_place(const efl_op_shapes *s, int64_t i) {
    const int64_t *ints = s->node->ints;
    const float last = (float)(s->x[0].dim[ints[AXIS]] - 1);
    float place = original(s, i);
    if (ints[MODE] == NEAREST) place = rounded(ints[ROUNDING], place);
    return place < 0 ? 0 : place > last ? last : place;
}

static float extend_place(const efl_op_shapes *s, int64_t i) {
    const int64_t *ints = s->node->ints, n = s->x[0].dim[ints[AXIS]], at = i - ints[1];
    if (at >= 0 && at < n) return (float)at;
    if (ints[3] == REFLECT) return (float)(at < 0 ? -at : 2 * (n - 1) - at);
    if (ints[3] == WRAP) return (float)(at < 0 ? at + n : at - n);
    return at < 0 ? 0 : (float)(n - 1);
}

static float stride_place(const efl_op_shapes *s, int64_t i) {
    return (float)(s->node->ints[1] + i * s->node->ints[2]);
}

/* x and y as (outer, axis, inner), with the places in scratch. */
typedef struct {
    int64_t outer, from, to, inner;
} sizes;

static sizes prepared(const efl_op_run *run, place_of *place) {
    const efl_op_shapes *s = run->shapes;
    const int64_t axis = s->node->ints[AXIS];
    sizes n = {.outer = run->batch, .from = s->x[0].dim[axis], .to = s->y.dim[axis], .inner = 1};
    for (int64_t i = 0; i < axis; i++) n.outer *= s->y.dim[i];
    for (int64_t i = axis + 1; i < s->y.ndim; i++) n.inner *= s->y.dim[i];
    for (int64_t i = 0; i < n.to; i++) run->scratch[i] = place(s, i);
    return n;
}

static void read_along(const efl_op_run *run, place_of *place) {
    const sizes n = prepared(run, place);
    float *y = run->y;
    for (int64_t outer = 0; outer < n.outer && !efl_stopped(run); outer++) {
        const float *x = run->x[0] + outer * n.from * n.inner;
        for (int64_t i = 0; i < n.to; i++, y += n.inner) {
            const int64_t at = (int64_t)run->scratch[i];
            const float share = run->scratch[i] - (float)at, *low = x + at * n.inner;
            if (share == 0)
                memcpy(y, low, (size_t)n.inner * sizeof *y);
            else
                for (int64_t j = 0; j < n.inner; j++) y[j] = (1 - share) * low[j] + share * low[n.inner + j];
        }
    }
}

static void send_along(const efl_op_run *run, place_of *place) {
    const sizes n = prepared(run, place);
    const float *dy = run->dy;
    memset(run->dx[0], 0, (size_t)(n.outer * n.from * n.inner) * sizeof *run->dx[0]);
    for (int64_t outer = 0; outer < n.outer && !efl_stopped(run); outer++) {
        float *dx = run->dx[0] + outer * n.from * n.inner;
        for (int64_t i = 0; i < n.to; i++, dy += n.inner) {
            const int64_t at = (int64_t)run->scratch[i];
            const float share = run->scratch[i] - (float)at;
            float *low = dx + at * n.inner;
            for (int64_t j = 0; j < n.inner; j++) low[j] += (1 - share) * dy[j];
            for (int64_t j = 0; j < n.inner && share > 0; j++) low[n.inner + j] += share * dy[j];
        }
    }
}

#define EFL_ALONG(which, ints, floats)                            \
    static void forward_##which(const efl_op_run *run) {          \
        read_along(run, which##_place);                           \
    }                                                             \
    static void backward_##which(const efl_op_run *run) {         \
        if (run->dx[0] != NULL) send_along(run, which##_place);   \
    }                                                             \
    const efl_op efl_op_##which = {.name = #which,                \
                                   .flags = EFL_BY_SAMPLES,       \
                                   .min_inputs = 1,               \
                                   .max_inputs = 1,               \
                                   .num_ints = ints,              \
                                   .num_floats = floats,          \
                                   .infer = infer_##which,        \
                                   .forward = forward_##which,    \
                                   .backward = backward_##which};

EFL_ALONG(resize, 5, 1)
EFL_ALONG(extend, 4, 0)
EFL_ALONG(stride, 4, 0)
