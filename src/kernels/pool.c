/* pool.c: the largest or the mean value of each window of one sample, channel by channel, in vectors. Padding is
 * nowhere in memory: windows are cut where they leave the image. The geometry is copied, so that the compiler knows
 * that no store changes it.
 */

/* What is left of a window along one axis (0 rows, 1 columns): from first_of in steps of the dilation to before
 * end_of. */
INLINE int64_t first_of(efl_window w, const int axis, int64_t out) {
    const int64_t start = out * w.stride[axis] - w.before[axis], step = w.dilation[axis];
    return start >= 0 ? start : step == 1 ? 0 : (step + start % step) % step;
}
INLINE int64_t end_of(efl_window w, const int axis, int64_t out) {
    const int64_t end = out * w.stride[axis] - w.before[axis] + (w.kernel[axis] - 1) * w.dilation[axis] + 1;
    return end > w.x[axis] ? w.x[axis] : end;
}
INLINE int64_t count_of(efl_window w, const int axis, int64_t out) {
    const int64_t step = w.dilation[axis];
    return (end_of(w, axis, out) - first_of(w, axis, out) + step - 1) / step;
}

/* For every output pixel (oh, ow) to make, whose C floats start at `at`, and every VL of its channels from `c`, `n` of
 * them there. */
#define FOR_WINDOWS(w, at, c, n)                                                                         \
    for (int64_t oh = w.from[0]; oh < w.to[0]; oh++)                                                     \
        for (int64_t ow = w.from[1], at = (oh * w.y[1] + ow) * w.x[2]; ow < w.to[1]; ow++, at += w.x[2]) \
            for (int64_t c = 0, n = w.x[2]; n > 0; c += VL, n -= VL)

/* For every place in that pixel's window: its channels from `c` are at `in`. */
#define FOR_PLACES(w, in, c)                                                                               \
    for (int64_t ih = first_of(w, 0, oh); ih < end_of(w, 0, oh); ih += w.dilation[0])                      \
        for (int64_t iw = first_of(w, 1, ow), in = (ih * w.x[1] + iw) * w.x[2] + c; iw < end_of(w, 1, ow); \
             iw += w.dilation[1], in += w.dilation[1] * w.x[2])

/* NaN is larger than anything: a diverged model must be noticed. */
INLINE vf larger(vf best, vf v) {
    return choose((v > best) | (v != v), v, best);
}

static void maxpool(float *y, const float *x, const efl_window *window) {
    const efl_window w = *window;
    FOR_WINDOWS(w, at, c, n) {
        vf best = splat(-INFINITY);
        FOR_PLACES(w, in, c) best = larger(best, load_upto(x + in, n));
        store_upto(y + at + c, best, n);
    }
}

/* The first of equals gets the gradient, as in PyTorch. */
static void maxpool_backward(float *dx, const float *dy, const float *x, const efl_window *window) {
    const efl_window w = *window;
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

INLINE float pool_share(efl_window w, int64_t oh, int64_t ow, int include_pad) {
    const int64_t there = count_of(w, 0, oh) * count_of(w, 1, ow);
    return 1.0f / (float)(include_pad ? w.kernel[0] * w.kernel[1] : there);
}

static void avgpool(float *y, const float *x, const efl_window *window, int include_pad) {
    const efl_window w = *window;
    FOR_WINDOWS(w, at, c, n) {
        vf sum = splat(0);
        FOR_PLACES(w, in, c) sum += load_upto(x + in, n);
        store_upto(y + at + c, sum * pool_share(w, oh, ow, include_pad), n);
    }
}

static void avgpool_backward(float *dx, const float *dy, const efl_window *window, int include_pad) {
    const efl_window w = *window;
    FOR_WINDOWS(w, at, c, n) {
        const vf d = load_upto(dy + at + c, n) * pool_share(w, oh, ow, include_pad);
        FOR_PLACES(w, in, c) store_upto(dx + in, load_upto(dx + in, n) + d, n);
    }
}
