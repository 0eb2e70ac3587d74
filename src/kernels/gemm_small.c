/* gemm_small.c: matrix products for a processor without vectors, in place of gemm.c and gemm_nt.c.
 *
 * 4 x 4 sums and the 8 numbers that go into them are 24 of the 32 registers of a Cortex-M33. Nothing is packed, because
 * there is no cache; so nothing but a tile is on the stack.
 */

enum { SIDE = 4, UPDATE_COLS = 16 };

/* c(M,N) = a(M,K) b(K,N) + bias(N), unless that is NULL; or, if accumulate, c += scale a b. a[i][p] is at
 * a[i * a_row + p * a_col], b[p][j] at b[p * b_row + j * b_col]. */
typedef struct {
    float *c;
    const float *a, *b, *bias;
    ptrdiff_t m, n, k, ldc, a_row, a_col, b_row, b_col;
    int accumulate;
    float scale;
} small_product;

/* rows and cols are constants in every call, so that the sums are registers. */
INLINE void small_tile(const int rows, const int cols, const small_product *p, ptrdiff_t i, ptrdiff_t j) {
    float sum[SIDE][SIDE];
    const ptrdiff_t a_row = p->a_row, a_col = p->a_col, b_row = p->b_row, b_col = p->b_col;
    const float *a = p->a + i * a_row, *b = p->b + j * b_col;
    float *c = p->c + i * p->ldc + j;
#pragma GCC unroll 4
    for (int s = 0; s < cols; s++) {
        const float start = p->bias == NULL ? 0 : p->bias[j + s];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) sum[r][s] = start;
    }
    for (ptrdiff_t left = p->k; left > 0; left--, a += a_col, b += b_row) {
        float right[SIDE];
#pragma GCC unroll 4
        for (int s = 0; s < cols; s++) right[s] = b[s * b_col];
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const float factor = a[r * a_row];
#pragma GCC unroll 4
            for (int s = 0; s < cols; s++) sum[r][s] += factor * right[s];
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++, c += p->ldc) {
#pragma GCC unroll 4
        for (int s = 0; s < cols; s++) c[s] = p->accumulate ? c[s] + sum[r][s] * p->scale : sum[r][s];
    }
}

static void multiply(const small_product *p) {
    ptrdiff_t i = 0;
    for (; i < p->m; i += p->m - i >= SIDE ? SIDE : 1) {
        ptrdiff_t j = 0;
        for (; j + SIDE <= p->n; j += SIDE) {
            if (p->m - i >= SIDE)
                small_tile(SIDE, SIDE, p, i, j);
            else
                small_tile(1, SIDE, p, i, j);
        }
        for (; j < p->n; j++) {
            if (p->m - i >= SIDE)
                small_tile(SIDE, 1, p, i, j);
            else
                small_tile(1, 1, p, i, j);
        }
    }
}

static void gemm(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,
                 const float *bias, int64_t m, int64_t n, int64_t k, int accumulate) {
    multiply(&(small_product){.c = c,
                              .a = a,
                              .b = b,
                              .bias = accumulate ? NULL : bias,
                              .m = (ptrdiff_t)m,
                              .n = (ptrdiff_t)n,
                              .k = (ptrdiff_t)k,
                              .ldc = (ptrdiff_t)ldc,
                              .a_row = (ptrdiff_t)a_row,
                              .a_col = (ptrdiff_t)a_col,
                              .b_row = (ptrdiff_t)ldb,
                              .b_col = 1,
                              .accumulate = accumulate,
                              .scale = 1});
}

static void gemm_nt(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    multiply(&(small_product){.c = c,
                              .a = a,
                              .b = b,
                              .m = (ptrdiff_t)m,
                              .n = (ptrdiff_t)n,
                              .k = (ptrdiff_t)k,
                              .ldc = (ptrdiff_t)ldc,
                              .a_row = (ptrdiff_t)k,
                              .a_col = 1,
                              .b_row = 1,
                              .b_col = (ptrdiff_t)k,
                              .scale = 1});
}

/* Plain SGD is a product accumulated with the scale -lr. Else a piece of the gradient after another is had. */
static void gemm_update(float *w, float *v, float *s, const float *w0, const float *c, const float *a, int64_t a_row,
                        int64_t a_col, const float *b, const efl_sgd *sgd, int64_t m, int64_t n, int64_t k) {
    float g[UPDATE_COLS];
    small_product p = {.c = w,
                       .a = a,
                       .b = b,
                       .m = (ptrdiff_t)m,
                       .n = (ptrdiff_t)n,
                       .k = (ptrdiff_t)k,
                       .ldc = (ptrdiff_t)n,
                       .a_row = (ptrdiff_t)a_row,
                       .a_col = (ptrdiff_t)a_col,
                       .b_row = (ptrdiff_t)n,
                       .b_col = 1,
                       .accumulate = 1,
                       .scale = -sgd->lr * sgd->grad_scale};
    if (v == NULL && sgd->weight_decay == 0 && sgd->prox_mu == 0) {
        multiply(&p);
        shift(w, c, sgd->lr, m * n);
        return;
    }
    p.c = g;
    p.m = 1;
    p.accumulate = 0;
    for (ptrdiff_t i = 0; i < m; i++) {
        for (ptrdiff_t j = 0; j < n; j += UPDATE_COLS) {
            const ptrdiff_t at = i * (ptrdiff_t)n + j;
            p.n = n - j < UPDATE_COLS ? (ptrdiff_t)n - j : UPDATE_COLS;
            p.a = a + i * (ptrdiff_t)a_row;
            p.b = b + j;
            multiply(&p);
            sgd_step(w + at, v == NULL ? NULL : v + at, s == NULL ? NULL : s + at, g, w0 + at,
                     c == NULL ? NULL : c + at, sgd, p.n);
        }
    }
}

/* y(cols,rows) = x(rows,cols)^T, on top of y if add. */
INLINE void turn(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t rows, int64_t cols, const int add) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) y[j * ldy + i] = x[i * ldx + j] + (add ? y[j * ldy + i] : 0);
}
