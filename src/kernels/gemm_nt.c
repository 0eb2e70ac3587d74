/* gemm_nt.c: c(M,N) = a(M,K) b(N,K)^T, the gradient of a dense layer's input.
 *
 * Three ways, all reading b along its rows. Few rows of a: dot products along K, four of them summed at once.
 * Vectors full of them: a is transposed, so that a lane is a row of a and b's elements are broadcast; the result
 * comes out transposed and is turned back. Many: panels of b are transposed, and each is multiplied by all rows.
 */

/* c(rows,4) = a(rows,K) b(4,K)^T */
INLINE void dot_tile(const int rows, float *c, int64_t ldc, const float *a, const float *b, int64_t k) {
    vf sum[DOT_ROWS][4] = {{{0}}};
    int64_t p = 0;
#if defined(NEON_64)
    p = k / VL * VL;
    if (p > 0) ordered_dots(sum, rows, a, b, k, k / VL);
#else
    for (; p + VL <= k; p += VL) {
        vf left[DOT_ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) left[i] = load(a + i * k + p);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const vf right = load(b + j * k + p);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) sum[i][j] = add_product(sum[i][j], left[i], right);
        }
    }
#endif
    if (p < k) {
        vf left[DOT_ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) left[i] = load_n(a + i * k + p, k - p);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            const vf right = load_n(b + j * k + p, k - p);
#pragma GCC unroll 8
            for (int i = 0; i < rows; i++) sum[i][j] = add_product(sum[i][j], left[i], right);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
        *(v4_unaligned *)(c + i * ldc) = sum_four(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
}

#define DOT_CASE(rows)                                                        \
    case rows: dot_tile(rows <= DOT_ROWS ? rows : 1, c, ldc, a, b, k); break;

/* Tiles of 3 rows are better full, with a low one for the rest; of tiles of 6 equal ones are better. */
static void dot_rows(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t k) {
    for (int64_t tiles = (m + DOT_ROWS - 1) / DOT_ROWS; tiles > 0; tiles--) {
        const int64_t rows = DOT_ROWS == 6 ? (m + tiles - 1) / tiles : m < DOT_ROWS ? m : DOT_ROWS;
        switch (rows) {
            DOT_CASE(1)
            DOT_CASE(2)
            DOT_CASE(3)
#if DOT_ROWS == 6
            DOT_CASE(4)
            DOT_CASE(5)
            DOT_CASE(6)
#endif
        }
        m -= rows;
        a += rows * k;
        c += rows * ldc;
    }
}

/* Four columns at a time; the last four overlap those before them, which come out the same again. */
static void dots(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    if (n >= 4) {
        for (int64_t j = 0; j < n; j += 4) {
            const int64_t at = j + 4 <= n ? j : n - 4;
            dot_rows(c + at, ldc, a, b + at * k, m, k);
        }
        return;
    }
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            vf sum = {0};
            for (int64_t p = 0; p < k; p += VL)
                sum += load_upto(a + i * k + p, k - p) * load_upto(b + j * k + p, k - p);
            c[i * ldc + j] = sum_lanes(sum);
        }
    }
}

/* y(cols,rows) = x(rows,cols)^T, on top of y if add. */
INLINE void turn(float *y, int64_t ldy, const float *x, int64_t ldx, int64_t rows, int64_t cols, const int add) {
    int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
        int64_t j = 0;
        for (; j + 4 <= cols; j += 4) {
            v4 part[4];
            for (int r = 0; r < 4; r++) part[r] = *(const v4_unaligned *)(x + (i + r) * ldx + j);
            turn_four(part);
            for (int r = 0; r < 4; r++) {
                v4_unaligned *to = (v4_unaligned *)(y + (j + r) * ldy + i);
                if (add) part[r] += *to;
                *to = part[r];
            }
        }
        for (; j < cols; j++)
            for (int r = 0; r < 4; r++) y[j * ldy + i + r] = x[(i + r) * ldx + j] + (add ? y[j * ldy + i + r] : 0);
    }
    for (; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) y[j * ldy + i] = x[i * ldx + j] + (add ? y[j * ldy + i] : 0);
}

enum { TURN_WIDE = 2 * VL, TURN_DEPTH = 256, TURN_ROWS = 24 };

/* m rows of a, at most TURN_WIDE. */
static void turned(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    float right[TURN_DEPTH * TURN_WIDE], sums[TURN_ROWS * TURN_WIDE];
    const int64_t wide = (m + VL - 1) / VL * VL;
    for (int64_t p = 0; p < k; p += TURN_DEPTH) {
        const int64_t depth = k - p < TURN_DEPTH ? k - p : TURN_DEPTH;
        turn(right, wide, a + p, k, m, depth, 0);
        for (int64_t q = 0; q < depth && m < wide; q++)
            memset(right + q * wide + m, 0, (size_t)(wide - m) * sizeof *right);
        for (int64_t j = 0; j < n; j += TURN_ROWS) {
            const int64_t rows = n - j < TURN_ROWS ? n - j : TURN_ROWS;
            multiply((gemm_problem){sums, b + j * k + p, right, NULL, rows, wide, depth, wide, k, 1, wide, 0, 1});
            if (p == 0)
                turn(c + j, ldc, sums, wide, rows, m, 0);
            else
                turn(c + j, ldc, sums, wide, rows, m, 1);
        }
    }
}

/* Which way is shorter for m <= TURN_WIDE rows, in vector operations for each row of b: a lane without a row is lost
 * work, and so is summing up the lanes of a dot product, which costs as much as about 4 steps. Of 4 lanes it costs
 * next to nothing, and 8 are too few to feed one multiplication from each element of b. */
static int worth_turning(int64_t m, int64_t n, int64_t k) {
    if (VL == 4 || n < 8 || (VL == 8 && m < 2 * VL && k >= 8 * VL)) return 0;
    return (m + VL - 1) / VL * (k + 8) < m * ((k + VL - 1) / VL + 4);
}

enum { PACKED_ROWS = 48 }; /* from so many on, turning a panel of b costs less than it gives */

static void packed(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    float panel[GEMM_PACKED];
    const int64_t vectors = (n + VL - 1) / VL, tail = n - (vectors - 1) * VL;
    gemm_problem g = {.m = m, .n = n, .ldc = ldc, .a_row = k, .a_col = 1, .scale = 1};
    int64_t p = 0;
    for (int64_t pieces = (k + PACKED_DEPTH - 1) / PACKED_DEPTH; pieces > 0; pieces--, p += g.k) {
        int64_t j = 0;
        g.k = (k - p + pieces - 1) / pieces;
        g.accumulate = p > 0;
        for (int64_t left = (vectors + GEMM_COLS - 1) / GEMM_COLS; left > 0; left--) {
            const int64_t cols = (vectors - j + left - 1) / left, at = j * VL;
            const int64_t last = (j += cols) == vectors ? tail : VL;
            g.ldb = cols * VL;
            turn(panel, g.ldb, b + at * k + p, k, (cols - 1) * VL + last, g.k, 0);
            panels[cols - 1][last < VL](&g, c + at, a + p, panel, NULL, (int)m, last);
        }
    }
}

static void gemm_nt(float *c, int64_t ldc, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    if (m >= PACKED_ROWS && n >= VL && k >= 16) {
        for (int64_t blocks = (m + GEMM_BLOCK - 1) / GEMM_BLOCK, rows; blocks > 0; blocks--, m -= rows) {
            rows = (m + blocks - 1) / blocks;
            packed(c, ldc, a, b, rows, n, k);
            a += rows * k;
            c += rows * ldc;
        }
        return;
    }
    while (m > 0) {
        int64_t rows = m < TURN_WIDE ? m : TURN_WIDE;
        if (!worth_turning(rows, n, k) && rows > VL) rows -= rows % VL;
        if (!worth_turning(rows, n, k)) {
            dots(c, ldc, a, b, m, n, k);
            return;
        }
        turned(c, ldc, a, b, rows, n, k);
        m -= rows;
        a += rows * k;
        c += rows * ldc;
    }
}
