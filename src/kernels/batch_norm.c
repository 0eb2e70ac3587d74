/* batch_norm.c: the passes of batch normalization over a matrix (M, N) whose columns are channels, with the relu or
 * clip that follows it. Whether a limit held an element is computed again from x, so that backward needs no y and no
 * pass of the activation's own.
 *
 * A strip of a few vectors of columns is gone through at a time, its constants in registers; blocks of rows as in
 * rows.c. Wide strips matter: all these passes wait for memory, which is fast along rows.
 */
#if defined(__AVX512F__) || defined(NEON_64)
#define STRIP 4 /* vectors */
#else
#define STRIP 2
#endif

/* For each block of rows, and each strip of `cols` vectors of columns from j on; `left` columns are there. */
#define FOR_STRIPS(body)                               \
    FOR_BLOCKS(first, rows, m, n) {                    \
        int64_t j = 0;                                 \
        for (; j + STRIP * VL <= n; j += STRIP * VL) { \
            body(STRIP, 0)                             \
        }                                              \
        for (; j < n; j += VL) {                       \
            body(1, 1)                                 \
        }                                              \
    }

INLINE vf load_of(const float *p, const int partial, int64_t left) {
    return partial ? load_upto(p, left) : load(p);
}

INLINE void store_of(float *p, vf v, const int partial, int64_t left) {
    if (partial)
        store_upto(p, v, left);
    else
        store(p, v);
}

/* Some of a strip's rows of constants. */
INLINE void load_strip(vf *to, const float *from, const int cols, const int partial, int64_t left) {
#pragma GCC unroll 4
    for (int v = 0; v < cols; v++) to[v] = load_of(from + v * VL, partial, left);
}

/* A strip's part of `both`: += sums of dy and dy d, or without dy of d and d d. A block's sums start anew: long sums
 * lose digits. */
INLINE void two_sums(float *both, const float *dy, const float *x, const float *shift, const efl_affine *f, int64_t j,
                     const int cols, const int partial, const int limits, int64_t rows, int64_t n) {
    vf sums[STRIP], products[STRIP], center[STRIP], scale[STRIP], offset[STRIP];
    const efl_clamp clamp = limits ? f->clamp : (efl_clamp){0, 0};
    load_strip(center, shift + j, cols, partial, n - j);
#pragma GCC unroll 4
    for (int v = 0; v < cols; v++) sums[v] = products[v] = splat(0);
    if (limits) load_strip(scale, f->a + j, cols, partial, n - j);
    if (limits) load_strip(offset, f->b + j, cols, partial, n - j);
    for (int64_t at = j; at < rows * n; at += n) {
#pragma GCC unroll 4
        for (int v = 0; v < cols; v++) {
            const vf value = load_of(x + at + v * VL, partial, n - j), d = value - center[v];
            vf g = d;
            if (dy != NULL) g = load_of(dy + at + v * VL, partial, n - j);
            if (limits) g = passed(g, value * scale[v] + offset[v], clamp);
            sums[v] += g;
            products[v] += g * d;
        }
    }
#pragma GCC unroll 4
    for (int v = 0; v < cols; v++) {
        float *sum = both + j + v * VL, *product = sum + n;
        store_of(sum, load_of(sum, partial, n - j) + sums[v], partial, n - j);
        store_of(product, load_of(product, partial, n - j) + products[v], partial, n - j);
    }
}

static void moments(float *both, const float *x, const float *shift, int64_t m, int64_t n) {
#define BODY(cols, partial) two_sums(both, NULL, x + first * n, shift, NULL, j, cols, partial, 0, rows, n);
    FOR_STRIPS(BODY)
#undef BODY
}

static void moments_of_all(float *both, const float *dy, const float *x, const float *shift, int64_t m, int64_t n) {
#define BODY(cols, partial) two_sums(both, dy + first * n, x + first * n, shift, NULL, j, cols, partial, 0, rows, n);
    FOR_STRIPS(BODY)
#undef BODY
}

static void moments_backward(float *both, const float *dy, const float *x, const float *shift, const efl_affine *f,
                             int64_t m, int64_t n) {
    if (f == NULL) {
        moments_of_all(both, dy, x, shift, m, n);
        return;
    }
#define BODY(cols, partial) two_sums(both, dy + first * n, x + first * n, shift, f, j, cols, partial, 1, rows, n);
    FOR_STRIPS(BODY)
#undef BODY
}

INLINE void scale_strip(float *y, const float *x, const efl_affine *f, int64_t j, const int cols, const int partial,
                        int64_t rows, int64_t n) {
    vf scale[STRIP], offset[STRIP];
    const efl_clamp clamp = f->clamp;
    load_strip(scale, f->a + j, cols, partial, n - j);
    load_strip(offset, f->b + j, cols, partial, n - j);
    for (int64_t at = j; at < rows * n; at += n) {
#pragma GCC unroll 4
        for (int v = 0; v < cols; v++) {
            const vf value = load_of(x + at + v * VL, partial, n - j) * scale[v] + offset[v];
            store_of(y + at + v * VL, limited(value, clamp), partial, n - j);
        }
    }
}

static void scale_rows(float *y, const float *x, const efl_affine *f, int64_t m, int64_t n) {
#define BODY(cols, partial) scale_strip(y + first * n, x + first * n, f, j, cols, partial, rows, n);
    FOR_STRIPS(BODY)
#undef BODY
}

INLINE void mix_strip(float *dx, const float *dy, const float *x, const float *shift, const float *abc,
                      const efl_affine *f, int64_t j, const int cols, const int partial, const int limits, int64_t rows,
                      int64_t n) {
    vf center[STRIP], a[STRIP], b[STRIP], c[STRIP], offset[STRIP];
    const efl_clamp clamp = limits ? f->clamp : (efl_clamp){0, 0};
    load_strip(center, shift + j, cols, partial, n - j);
    load_strip(a, abc + j, cols, partial, n - j);
    load_strip(b, abc + n + j, cols, partial, n - j);
    load_strip(c, abc + 2 * n + j, cols, partial, n - j);
    if (limits) load_strip(offset, f->b + j, cols, partial, n - j);
    for (int64_t at = j; at < rows * n; at += n) {
#pragma GCC unroll 4
        for (int v = 0; v < cols; v++) {
            const vf value = load_of(x + at + v * VL, partial, n - j);
            vf g = load_of(dy + at + v * VL, partial, n - j);
            if (limits) g = passed(g, value * a[v] + offset[v], clamp); /* a is f's a */
            store_of(dx + at + v * VL, g * a[v] + (value - center[v]) * b[v] + c[v], partial, n - j);
        }
    }
}

static void mix_all(float *dx, const float *dy, const float *x, const float *shift, const float *abc, int64_t m,
                    int64_t n) {
#define BODY(cols, partial)                                                                                   \
    mix_strip(dx + first * n, dy + first * n, x + first * n, shift, abc, NULL, j, cols, partial, 0, rows, n);
    FOR_STRIPS(BODY)
#undef BODY
}

static void mix_rows(float *dx, const float *dy, const float *x, const float *shift, const float *abc,
                     const efl_affine *f, int64_t m, int64_t n) {
    if (f == NULL) {
        mix_all(dx, dy, x, shift, abc, m, n);
        return;
    }
#define BODY(cols, partial)                                                                                \
    mix_strip(dx + first * n, dy + first * n, x + first * n, shift, abc, f, j, cols, partial, 1, rows, n);
    FOR_STRIPS(BODY)
#undef BODY
}
