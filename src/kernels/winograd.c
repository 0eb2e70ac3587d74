/* winograd.c: the transforms of a 3 x 3 convolution of stride 1 by Winograd's minimal filtering, F(2 x 2, 3 x 3)
 * (Lavin, Gray 2016, arXiv:1509.09308): 16 multiplications for each 2 x 2 outputs, where the plain sum has 36.
 *
 * A tile is 4 x 4 pixels of the padded image, two apart from the next. Element e = 4 i + j of every tile's transform
 * lies with that of the other tiles: v(16, tiles, C), u(16, C, O), m(16, tiles, O) = v u for each e by itself, which
 * is the caller's. The transforms only add, and halve weights, so an error grows by a small factor.
 */

/* (a0 - a2, a1 + a2, a2 - a1, a1 - a3) */
INLINE void input_line(vf *to, const vf a0, const vf a1, const vf a2, const vf a3, const int step) {
    to[0] = a0 - a2;
    to[step] = a1 + a2;
    to[2 * step] = a2 - a1;
    to[3 * step] = a1 - a3;
}

static void winograd_input(float *v, int64_t apart, const float *x, const int64_t *tiles, int64_t from, int64_t to,
                           int64_t wide, int64_t c) {
    const int64_t row = (2 * tiles[1] + 2) * wide;
    for (int64_t t = from; t < to; t++, v += c) {
        const int64_t line = t / tiles[1], image = line / tiles[0];
        const float *at = x + (2 * (line + image)) * row + t % tiles[1] * 2 * wide;
        FOR_VECTORS(j, c) {
            vf d[16], e[16];
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) d[i] = load_upto(at + i / 4 * row + i % 4 * wide + j, c - j);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) input_line(e + i, d[i], d[i + 4], d[i + 8], d[i + 12], 4);
#pragma GCC unroll 4
            for (int i = 0; i < 16; i += 4) input_line(d + i, e[i], e[i + 1], e[i + 2], e[i + 3], 1);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) store_upto(v + i * apart + j, d[i], c - j);
        }
    }
}

static void winograd_output(float *y, const float *m, int64_t apart, const float *bias, const int64_t *tiles,
                            int64_t from, int64_t to, int64_t n) {
    const int64_t row = 2 * tiles[1] * n;
    for (int64_t t = from; t < to; t++, m += n) {
        float *at = y + 2 * (t / tiles[1]) * row + t % tiles[1] * 2 * n;
        FOR_VECTORS(j, n) {
            const vf start = bias == NULL ? splat(0) : load_upto(bias + j, n - j);
            vf d[16], e[8];
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) d[i] = load_upto(m + i * apart + j, n - j);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                e[i] = d[i] + d[i + 4] + d[i + 8];
                e[i + 4] = d[i + 4] - d[i + 8] - d[i + 12];
            }
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++) {
                const vf *a = e + 4 * i;
                store_upto(at + i * row + j, start + (a[0] + a[1] + a[2]), n - j);
                store_upto(at + i * row + n + j, start + (a[1] - a[2] - a[3]), n - j);
            }
        }
    }
}

/* What winograd_output's sums send back: (a0, a0 + a1, a0 - a1, -a1) */
INLINE void gradient_line(vf *to, const vf a0, const vf a1, const int step) {
    to[0] = a0;
    to[step] = a0 + a1;
    to[2 * step] = a0 - a1;
    to[3 * step] = -a1;
}

static void winograd_gradient(float *m, int64_t apart, const float *dy, const int64_t *tiles, int64_t from, int64_t to,
                              int64_t n) {
    const int64_t row = 2 * tiles[1] * n;
    for (int64_t t = from; t < to; t++, m += n) {
        const float *at = dy + 2 * (t / tiles[1]) * row + t % tiles[1] * 2 * n;
        FOR_VECTORS(j, n) {
            vf d[8], e[16];
#pragma GCC unroll 2
            for (int i = 0; i < 2; i++)
                gradient_line(d + i, load_upto(at + i * n + j, n - j), load_upto(at + row + i * n + j, n - j), 2);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) gradient_line(e + 4 * i, d[2 * i], d[2 * i + 1], 1);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) store_upto(m + i * apart + j, e[i], n - j);
        }
    }
}

/* (a0, (a0 + a1 + a2) / 2, (a0 - a1 + a2) / 2, a2) */
INLINE void weight_line(vf *to, const vf a0, const vf a1, const vf a2, const int step) {
    const vf outer = 0.5f * (a0 + a2), inner = 0.5f * a1;
    to[0] = a0;
    to[step] = outer + inner;
    to[2 * step] = outer - inner;
    to[3 * step] = a2;
}

static void winograd_weights(float *u, const float *w, int turned, int64_t n) {
    const int64_t first = turned ? 8 * n : 0, next = turned ? -n : n;
    FOR_VECTORS(j, n) {
        vf d[9], e[12], f[16];
#pragma GCC unroll 9
        for (int i = 0; i < 9; i++) d[i] = load_upto(w + first + i * next + j, n - j);
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++) weight_line(e + i, d[i], d[i + 3], d[i + 6], 3);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) weight_line(f + 4 * i, e[3 * i], e[3 * i + 1], e[3 * i + 2], 1);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) store_upto(u + i * n + j, f[i], n - j);
    }
}

/* What weight_line sends back. */
INLINE void weight_line_back(vf *to, const vf a0, const vf a1, const vf a2, const vf a3, const int step) {
    const vf outer = 0.5f * (a1 + a2);
    to[0] = a0 + outer;
    to[step] = 0.5f * (a1 - a2);
    to[2 * step] = outer + a3;
}

static void winograd_weights_back(float *dw, int64_t apart, const float *u, int64_t n) {
    FOR_VECTORS(j, n) {
        vf d[16], e[12], f[9];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) d[i] = load_upto(u + i * n + j, n - j);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) weight_line_back(e + i, d[i], d[i + 4], d[i + 8], d[i + 12], 4);
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++) weight_line_back(f + 3 * i, e[4 * i], e[4 * i + 1], e[4 * i + 2], e[4 * i + 3], 1);
#pragma GCC unroll 9
        for (int i = 0; i < 9; i++) store_upto(dw + i * apart + j, load_upto(dw + i * apart + j, n - j) + f[i], n - j);
    }
}
