/* gemm.c: matrix products for small batches, on unpacked operands.
 *
 * Dense layers of a device see 1 to 32 samples, where packing costs more than it gives. A tile of the result
 * stays in registers while the whole of K streams by; a panel of b (K, GEMM_COLS * VL) is reused from the cache
 * by the tiles below one another.
 */

/* One tile: c(rows,N) = a(rows,K) b(K,N) on top of c, bias or nothing, N of `cols` vectors, the last one of `tail` lanes.
 * rows, cols and partial are constants in every call, so that the sums are registers. */
INLINE void gemm_tile(const int rows, const int cols, const int partial, float *c, const float *a,
                      int64_t a_row, int64_t a_col, const float *b, const float *bias, int64_t n, int64_t k,
                      int64_t tail, int accumulate) {
    vf sum[GEMM_ROWS][GEMM_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) {
            const float *start = accumulate ? c + i * n + j * VL : bias == NULL ? NULL : bias + j * VL;
            sum[i][j] = start == NULL ? splat(0) : partial && j == cols - 1 ? load_n(start, tail) : load(start);
        }
    }
    for (int64_t p = 0; p < k; p++) {
        vf right[GEMM_COLS];
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++)
            right[j] = partial && j == cols - 1 ? load_n(b + p * n + j * VL, tail) : load(b + p * n + j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vf left = splat(a[i * a_row + p * a_col]);
#pragma GCC unroll 8
            for (int j = 0; j < cols; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) {
            if (partial && j == cols - 1)
                store_n(c + i * n + j * VL, sum[i][j], tail);
            else
                store(c + i * n + j * VL, sum[i][j]);
        }
    }
}

/* All tiles of one column panel, which is cols vectors wide. */
#define GEMM_PANEL(cols, partial)                                                                             \
    static void gemm_panel_##cols##_##partial(float *c, const float *a, int64_t a_row, int64_t a_col,         \
                                              const float *b, const float *bias, int64_t m, int64_t n,        \
                                              int64_t k, int64_t tail, int accumulate) {                      \
        for (; m >= GEMM_ROWS; m -= GEMM_ROWS, a += GEMM_ROWS * a_row, c += GEMM_ROWS * n)                    \
            gemm_tile(GEMM_ROWS, cols, partial, c, a, a_row, a_col, b, bias, n, k, tail, accumulate);         \
        switch (m) {                                                                                          \
        case 4: gemm_tile(4, cols, partial, c, a, a_row, a_col, b, bias, n, k, tail, accumulate); break;      \
        case 3: gemm_tile(3, cols, partial, c, a, a_row, a_col, b, bias, n, k, tail, accumulate); break;      \
        case 2: gemm_tile(2, cols, partial, c, a, a_row, a_col, b, bias, n, k, tail, accumulate); break;      \
        case 1: gemm_tile(1, cols, partial, c, a, a_row, a_col, b, bias, n, k, tail, accumulate); break;      \
        }                                                                                                     \
    }

typedef void gemm_panel(float *, const float *, int64_t, int64_t, const float *, const float *, int64_t,
                        int64_t, int64_t, int64_t, int);

GEMM_PANEL(1, 0)
GEMM_PANEL(1, 1)
GEMM_PANEL(2, 0)
GEMM_PANEL(2, 1)
#if GEMM_COLS == 4
GEMM_PANEL(3, 0)
GEMM_PANEL(3, 1)
GEMM_PANEL(4, 0)
GEMM_PANEL(4, 1)
#endif

static gemm_panel *const panels[GEMM_COLS][2] = {
    {gemm_panel_1_0, gemm_panel_1_1},
    {gemm_panel_2_0, gemm_panel_2_1},
#if GEMM_COLS == 4
    {gemm_panel_3_0, gemm_panel_3_1},
    {gemm_panel_4_0, gemm_panel_4_1},
#endif
};

/* As gemm_tile with a gradient for a result, which moves w instead of being stored. */
INLINE void update_tile(const int rows, const int cols, float *w, float *v, const float *w0, const float *a,
                        int64_t a_row, int64_t a_col, const float *b, const efl_sgd *sgd, int64_t n, int64_t k,
                        int64_t width) {
    vf sum[GEMM_ROWS][GEMM_COLS] = {{{0}}};
    for (int64_t p = 0; p < k; p++) {
        vf right[GEMM_COLS];
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) right[j] = load_upto(b + p * n + j * VL, width - j * VL);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vf left = splat(a[i * a_row + p * a_col]);
#pragma GCC unroll 8
            for (int j = 0; j < cols; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) {
            const int64_t at = i * n + j * VL;
            sgd_lanes(w + at, v == NULL ? NULL : v + at, NULL, sum[i][j], w0 + at, sgd, width - j * VL);
        }
    }
}

static void gemm_update(float *w, float *v, const float *w0, const float *a, int64_t a_row, int64_t a_col,
                        const float *b, const efl_sgd *sgd, int64_t m, int64_t n, int64_t k) {
    for (int64_t j = 0; j < n; j += VL) {
        for (int64_t i = 0; i < m; i++) {
            const int64_t at = i * n + j;
            update_tile(1, 1, w + at, v == NULL ? NULL : v + at, w0 + at, a + i * a_row, a_row, a_col, b + j, sgd, n,
                        k, n - j);
        }
    }
}

static void gemm(float *c, const float *a, int64_t a_row, int64_t a_col, const float *b, const float *bias,
                 int64_t m, int64_t n, int64_t k, int accumulate) {
    for (int64_t j = 0; j < n; j += GEMM_COLS * VL) {
        const int64_t width = n - j < GEMM_COLS * VL ? n - j : GEMM_COLS * VL;
        const int64_t cols = (width + VL - 1) / VL, tail = width % VL;
        panels[cols - 1][tail != 0](c + j, a, a_row, a_col, b + j, bias == NULL ? NULL : bias + j, m, n, k,
                                    tail, accumulate);
    }
}

/* c(rows,cols) = a(rows,K) b(cols,K)^T as dot products along K; ldc is c's row length. */
INLINE void gemm_nt_tile(const int rows, const int cols, float *c, const float *a, const float *b, int64_t ldc,
                         int64_t k) {
    vf sum[4][4] = {{{0}}};
    for (int64_t p = 0; p < k; p += VL) {
        vf right[4];
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++) right[j] = load_upto(b + j * k + p, k - p);
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) {
            const vf left = load_upto(a + i * k + p, k - p);
#pragma GCC unroll 4
            for (int j = 0; j < cols; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++) c[i * ldc + j] = sum_lanes(sum[i][j]);
}

/* As many rows and columns as stay in registers beside the operands. */
#if GEMM_COLS == 4
#define NT_ROWS 4
#else
#define NT_ROWS 2
#endif

static void gemm_nt(float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    for (int64_t j = 0; j < n;) {
        const int64_t wide = n - j >= 4;
        int64_t i = 0;
        for (; i + NT_ROWS <= m; i += NT_ROWS) {
            if (wide)
                gemm_nt_tile(NT_ROWS, 4, c + i * n + j, a + i * k, b + j * k, n, k);
            else
                gemm_nt_tile(NT_ROWS, 1, c + i * n + j, a + i * k, b + j * k, n, k);
        }
        for (; i < m; i++) {
            if (wide)
                gemm_nt_tile(1, 4, c + i * n + j, a + i * k, b + j * k, n, k);
            else
                gemm_nt_tile(1, 1, c + i * n + j, a + i * k, b + j * k, n, k);
        }
        j += wide ? 4 : 1;
    }
}
