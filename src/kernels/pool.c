/* pool.c: the largest or the mean value of each window of one sample, channel by channel, in vectors. Padding is
 * nowhere in memory: windows are cut where they leave the image.
 */

/* What is left of a window along one axis: [from, to) of `size`. */
typedef struct {
    int64_t from, to;
} pool_span;

INLINE pool_span span_of(const efl_window *w, const int axis, int64_t out) {
    const int64_t start = out * w->stride[axis] - w->before[axis], end = start + w->kernel[axis];
    return (pool_span){start < 0 ? 0 : start, end > w->x[axis] ? w->x[axis] : end};
}

/* For every output pixel `at` (of C floats) and every VL of its channels from `c`, `n` of them there:
 * `rows` and `columns` are its window. */
#define FOR_WINDOWS(w, at, c, n)                                                                                 \
    for (int64_t oh = 0, at = 0; oh < w->y[0]; oh++)                                                             \
        for (int64_t ow = 0; ow < w->y[1]; ow++, at += w->x[2])                                                  \
            for (pool_span rows = span_of(w, 0, oh), columns = span_of(w, 1, ow), once = {0, 1}; once.from == 0; \
                 once.from = 1)                                                                                  \
                for (int64_t c = 0, n = w->x[2]; n > 0; c += VL, n -= VL)

/* For every place `in` of the window that holds channels from `c`. */
#define FOR_PLACES(w, in, c)                                                                            \
    for (int64_t ih = rows.from; ih < rows.to; ih++)                                                    \
        for (int64_t iw = columns.from, in = (ih * w->x[1] + iw) * w->x[2] + c; iw < columns.to;        \
             iw++, in += w->x[2])

/* NaN is larger than anything: a diverged model must be noticed. */
INLINE vf larger(vf best, vf v) {
    return choose((v > best) | (v != v), v, best);
}

static void maxpool(float *y, const float *x, const efl_window *w) {
    FOR_WINDOWS(w, at, c, n) {
        vf best = splat(-INFINITY);
        FOR_PLACES(w, in, c) best = larger(best, load_upto(x + in, n));
        store_upto(y + at + c, best, n);
    }
}

/* The first of equals gets the gradient, as in PyTorch. */
static void maxpool_backward(float *dx, const float *dy, const float *x, const efl_window *w) {
    memset(dx, 0, (size_t)(w->x[0] * w->x[1] * w->x[2]) * sizeof *dx);
    FOR_WINDOWS(w, at, c, n) {
        vf best = splat(-INFINITY), d = load_upto(dy + at + c, n);
        FOR_PLACES(w, in, c) best = larger(best, load_upto(x + in, n));
        FOR_PLACES(w, in, c) {
            const vi won = load_upto(x + in, n) == best;
            store_upto(dx + in, load_upto(dx + in, n) + choose(won, d, splat(0)), n);
            d = choose(won, splat(0), d);
        }
    }
}

INLINE float pool_share(const efl_window *w, pool_span rows, pool_span columns, int include_pad) {
    const int64_t there = (rows.to - rows.from) * (columns.to - columns.from);
    return 1.0f / (float)(include_pad ? w->kernel[0] * w->kernel[1] : there);
}

static void avgpool(float *y, const float *x, const efl_window *w, int include_pad) {
    FOR_WINDOWS(w, at, c, n) {
        vf sum = splat(0);
        FOR_PLACES(w, in, c) sum += load_upto(x + in, n);
        store_upto(y + at + c, sum * pool_share(w, rows, columns, include_pad), n);
    }
}

static void avgpool_backward(float *dx, const float *dy, const efl_window *w, int include_pad) {
    memset(dx, 0, (size_t)(w->x[0] * w->x[1] * w->x[2]) * sizeof *dx);
    FOR_WINDOWS(w, at, c, n) {
        const vf d = load_upto(dy + at + c, n) * pool_share(w, rows, columns, include_pad);
        FOR_PLACES(w, in, c) store_upto(dx + in, load_upto(dx + in, n) + d, n);
    }
}
