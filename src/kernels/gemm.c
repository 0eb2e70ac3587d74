/* gemm.c: matrix products for small batches, on unpacked operands.
 *
 * Dense layers of a device see 1 to 32 samples, where packing costs more than it gives. A tile of the result stays
 * in registers while K streams by. Rows are shared out evenly (10 are 5 + 5, never 6 + 4), so are columns, and a
 * column that is no whole vector is masked.
 *
 * Loops, from the outside: pieces of K; blocks of rows; panels of at most GEMM_COLS vectors, whose part of b stays
 * in the cache; tiles below one another. Only where there are so many rows that it pays, a panel of b is packed; pieces
 * of K are then inside the panels, unless a is turned.
 */

enum {
    GEMM_MOST = 1 << 20, /* rows in a block */
    GEMM_BLOCK = 360,    /* at most, where panels are packed */
    GEMM_LEAST = 96,     /* at least there, because each block packs the panels again */
    GEMM_NEAR = 1 << 17, /* floats of a block's part of a that stay in the second cache: 512 KB */
    GEMM_DEPTH = 256,    /* of K in a piece */
    GEMM_PACKED = 8192,  /* floats of a packed panel, on the stack: 32 KB */
    GEMM_AHEAD = 32,     /* steps of K that are long enough for a tile of c to come meanwhile */
    LINE_VECTORS = VL >= 16 ? 1 : 16 / VL, /* in a line of the cache */
    PACKED_DEPTH = GEMM_PACKED / (GEMM_COLS * VL) < GEMM_DEPTH ? GEMM_PACKED / (GEMM_COLS * VL) : GEMM_DEPTH
};

/* c(M,N) = a(M,K) b(K,N) + bias(N), unless that is NULL; or, if accumulate, c += scale a b. a[i][p] is
 * a[i * a_row + p * a_col]; ldc and ldb are the row lengths of c and b. */
typedef struct {
    float *c;
    const float *a, *b, *bias;
    int64_t m, n, k, ldc, a_row, a_col, ldb;
    int accumulate;
    float scale;
} gemm_problem;

/* Stores the sums into c, or adds them to c. A load must not wait for a masked store into the same cache line, so a row
 * is loaded before its neighbour is stored. In a narrow matrix, where many rows share a line, all are loaded first.
 * With short vectors that is always faster. */
INLINE void gemm_finish(const int rows, const int cols, const int partial, vf sum[GEMM_TALL][GEMM_COLS],
                        const gemm_problem *g, float *c, int64_t tail) {
    const int ahead = cols == 1 || VL < 16 ? rows : 1;
#pragma GCC unroll 32
    for (int i = 0; i < rows + ahead; i++) {
        if (i < rows && g->accumulate) {
#pragma GCC unroll 8
            for (int j = 0; j < cols; j++) {
                const float *at = c + i * g->ldc + j * VL;
                sum[i][j] = (partial && j == cols - 1 ? load_n(at, tail) : load(at)) + sum[i][j] * g->scale;
            }
        }
        if (i < ahead) continue;
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) {
            float *at = c + (i - ahead) * g->ldc + j * VL;
            if (partial && j == cols - 1)
                store_n(at, sum[i - ahead][j], tail);
            else
                store(at, sum[i - ahead][j]);
        }
    }
}

/* One tile: `rows` rows and `cols` vectors of c, the last one of `tail` lanes if partial. rows, cols and partial are
 * constants in every call, so that the sums are registers. */
INLINE void gemm_tile(const int rows, const int cols, const int partial, const gemm_problem *g, float *c,
                      const float *a, const float *b, const float *bias, int64_t tail) {
    vf sum[GEMM_TALL][GEMM_COLS];
    const int64_t ldb = g->ldb, a_row = g->a_row, a_col = g->a_col;
    if (g->k >= GEMM_AHEAD) {
#pragma GCC unroll 32
        for (int i = 0; i < rows; i++) {
#pragma GCC unroll 8
            for (int j = 0; j < cols; j += LINE_VECTORS) __builtin_prefetch(c + i * g->ldc + j * VL, 1);
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < cols; j++) {
        vf start = splat(0);
        if (bias != NULL) start = partial && j == cols - 1 ? load_n(bias + j * VL, tail) : load(bias + j * VL);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) sum[i][j] = start;
    }
#if defined(NEON_64)
    const float *left[GEMM_TALL];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) left[i] = a + i * a_row;
    ordered_steps(sum, rows, cols, partial, tail, &(ordered_operands){left, b, 0, a_col, ldb, g->k});
#else
    for (int64_t p = g->k; p > 0; p--, a += a_col, b += ldb) {
        vf right[GEMM_COLS];
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++)
            right[j] = partial && j == cols - 1 ? load_n(b + j * VL, tail) : load(b + j * VL);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            const vf left = splat(a[i * a_row]);
#pragma GCC unroll 8
            for (int j = 0; j < cols; j++) sum[i][j] = add_product(sum[i][j], left, right[j]);
        }
    }
#endif
    gemm_finish(rows, cols, partial, sum, g, c, tail);
}

/* All tiles of one column panel, which is `cols` vectors wide: m rows in as few tiles as possible, of equal height. */
#define GEMM_HEIGHT(rows, cols) ((rows) <= ((cols) == 1 ? GEMM_TALL : GEMM_ROWS) ? (rows) : 1)
#define GEMM_CASE(rows, cols, partial)                                                           \
    case rows: gemm_tile(GEMM_HEIGHT(rows, cols), cols, partial, g, c, a, b, bias, tail); break;
#define GEMM_SIX(cols, partial) \
    GEMM_CASE(1, cols, partial) \
    GEMM_CASE(2, cols, partial) \
    GEMM_CASE(3, cols, partial) \
    GEMM_CASE(4, cols, partial) \
    GEMM_CASE(5, cols, partial) \
    GEMM_CASE(6, cols, partial)
#define GEMM_TWELVE(cols, partial) \
    GEMM_SIX(cols, partial)        \
    GEMM_CASE(7, cols, partial)    \
    GEMM_CASE(8, cols, partial)    \
    GEMM_CASE(9, cols, partial)    \
    GEMM_CASE(10, cols, partial)   \
    GEMM_CASE(11, cols, partial)   \
    GEMM_CASE(12, cols, partial)
#define GEMM_PANEL(cols, partial, most, cases)                                                                 \
    static void gemm_panel_##cols##_##partial(const gemm_problem *g, float *c, const float *a, const float *b, \
                                              const float *bias, int m, int64_t tail) {                        \
        const int tiles = (m + most - 1) / most, rows = m / tiles;                                             \
        for (int left = tiles, taller = m % tiles; left > 0; left--, taller--) {                               \
            const int height = rows + (taller > 0);                                                            \
            switch (height) { cases(cols, partial) }                                                           \
            a += height * g->a_row;                                                                            \
            c += height * g->ldc;                                                                              \
        }                                                                                                      \
    }

typedef void gemm_panel(const gemm_problem *, float *, const float *, const float *, const float *, int, int64_t);

/* One vector wide, a tile must be tall, or its sums wait for one another. */
GEMM_PANEL(1, 1, GEMM_TALL, GEMM_TWELVE)
GEMM_PANEL(2, 1, GEMM_ROWS, GEMM_SIX)
#if GEMM_COLS == 4
GEMM_PANEL(3, 1, GEMM_ROWS, GEMM_SIX)
GEMM_PANEL(4, 1, GEMM_ROWS, GEMM_SIX)
#endif

#if defined(__AVX512F__) /* where a full mask costs nothing */
static gemm_panel *const panels[GEMM_COLS][2] = {
    {gemm_panel_1_1, gemm_panel_1_1},
    {gemm_panel_2_1, gemm_panel_2_1},
    {gemm_panel_3_1, gemm_panel_3_1},
    {gemm_panel_4_1, gemm_panel_4_1},
};
#else
GEMM_PANEL(1, 0, GEMM_TALL, GEMM_TWELVE)
GEMM_PANEL(2, 0, GEMM_ROWS, GEMM_SIX)
#if GEMM_COLS == 4
GEMM_PANEL(3, 0, GEMM_ROWS, GEMM_SIX)
GEMM_PANEL(4, 0, GEMM_ROWS, GEMM_SIX)
#endif

static gemm_panel *const panels[GEMM_COLS][2] = {
    {gemm_panel_1_0, gemm_panel_1_1},
    {gemm_panel_2_0, gemm_panel_2_1},
#if GEMM_COLS == 4
    {gemm_panel_3_0, gemm_panel_3_1},
    {gemm_panel_4_0, gemm_panel_4_1},
#endif
};
#endif

/* to(k, cols vectors) = columns of b, the last vector's first `last` of them. */
INLINE void pack_panel(float *to, const float *b, int64_t ldb, int64_t k, int64_t cols, int64_t last) {
    for (int64_t p = 0; p < k; p++, b += ldb)
        for (int64_t v = 0; v < cols; v++)
            store(to + (p * cols + v) * VL, load_upto(b + v * VL, v < cols - 1 ? VL : last));
}

/* All of K for one panel: so c is written again while it is near. */
static void packed_panel(gemm_problem g, gemm_panel *panel, int64_t cols, int64_t last) {
    float packed[GEMM_PACKED];
    int64_t left = g.k;
    const int64_t ldb = g.ldb;
    g.ldb = cols * VL;
    for (int64_t pieces = (g.k + PACKED_DEPTH - 1) / PACKED_DEPTH; pieces > 0; pieces--) {
        g.k = (left + pieces - 1) / pieces;
        pack_panel(packed, g.b, ldb, g.k, cols, last);
        panel(&g, g.c, g.a, packed, g.bias, (int)g.m, last);
        left -= g.k;
        g.a += g.k * g.a_col;
        g.b += g.k * ldb;
        g.bias = NULL;
        g.accumulate = 1;
    }
}

/* All panels of rows `from` to `to`. */
static void gemm_panels(const gemm_problem *g, int64_t from, int64_t to, int packs) {
    const int64_t vectors = (g->n + VL - 1) / VL, tail = g->n - (vectors - 1) * VL;
    gemm_problem here = *g;
    here.a += from * g->a_row;
    here.m = to - from;
    int64_t j = 0;
    for (int64_t left = (vectors + GEMM_COLS - 1) / GEMM_COLS; left > 0; left--) {
        const int64_t cols = (vectors - j + left - 1) / left, at = j * VL;
        const int64_t last = (j += cols) == vectors ? tail : VL;
        gemm_panel *const panel = panels[cols - 1][last < VL];
        here.c = g->c + from * g->ldc + at;
        here.b = g->b + at;
        here.bias = g->bias == NULL ? NULL : g->bias + at;
        if (packs)
            packed_panel(here, panel, cols, last);
        else
            panel(&here, here.c, here.a, here.b, here.bias, (int)here.m, last);
    }
}

/* Rows that go through all panels together. Where K is so short that c is most of the traffic it is to be gone
 * through nearly in the order of its memory. */
static int64_t block_rows(const gemm_problem *g) {
    if (g->n <= GEMM_COLS * VL) return GEMM_MOST;
    return g->k <= 64 && g->n >= 512 ? 12 : 48;
}

/* Rows of whole pages keep falling into the same few sets of the cache, all the more the narrower the panel. */
static int worth_packing(const gemm_problem *g) {
    return g->k >= 16 && g->n > GEMM_COLS * VL && g->m >= (VL < 16 && g->ldb % 1024 == 0 ? 24 : 96);
}

/* Where panels are packed, a block's part of a stays in the second cache through all of them. Of a turned a each
 * element has a cache line of its own, so that K goes in pieces there. */
static int64_t packed_rows(const gemm_problem *g) {
    const int64_t most = g->a_col == 1 ? GEMM_NEAR / g->k : GEMM_BLOCK;
    return most > GEMM_BLOCK ? GEMM_BLOCK : most < GEMM_LEAST ? GEMM_LEAST : most;
}

static void multiply(gemm_problem g) {
    const int packs = worth_packing(&g);
    const int64_t depth = !packs ? GEMM_DEPTH : g.a_col == 1 ? g.k : PACKED_DEPTH;
    const int64_t rows = packs ? packed_rows(&g) : block_rows(&g);
    const int64_t blocks = (g.m + rows - 1) / rows;
    int64_t left = g.k, pieces = (g.k + depth - 1) / depth;
    for (; pieces > 0; pieces--) {
        g.k = (left + pieces - 1) / pieces;
        for (int64_t i = 0; i < blocks; i++) gemm_panels(&g, g.m * i / blocks, g.m * (i + 1) / blocks, packs);
        left -= g.k;
        g.a += g.k * g.a_col;
        g.b += g.k * g.ldb;
        g.bias = NULL;
        g.accumulate = 1;
    }
}

static void gemm(float *c, int64_t ldc, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t ldb,
                 const float *bias, int64_t m, int64_t n, int64_t k, int accumulate) {
    multiply((gemm_problem){c, a, b, accumulate ? NULL : bias, m, n, k, ldc, a_row, a_col, ldb, accumulate, 1});
}

enum { UPDATE_ROWS = 24, UPDATE_COLS = 128 };

/* Plain SGD is a product accumulated with the scale -lr. Else a piece of the gradient after another is had. */
static void gemm_update(float *w, float *v, float *s, const float *w0, const float *c, const float *a, int64_t a_row,
                        int64_t a_col, const float *b, const efl_sgd *sgd, int64_t m, int64_t n, int64_t k) {
    float g[UPDATE_ROWS * UPDATE_COLS];
    if (v == NULL && sgd->weight_decay == 0 && sgd->prox_mu == 0) {
        multiply((gemm_problem){w, a, b, NULL, m, n, k, n, a_row, a_col, n, 1, -sgd->lr * sgd->grad_scale});
        shift(w, c, sgd->lr, m * n);
        return;
    }
    for (int64_t i = 0; i < m; i += UPDATE_ROWS) {
        const int64_t rows = m - i < UPDATE_ROWS ? m - i : UPDATE_ROWS;
        for (int64_t j = 0; j < n; j += UPDATE_COLS) {
            const int64_t cols = n - j < UPDATE_COLS ? n - j : UPDATE_COLS;
            const int64_t run = cols == n ? rows * n : cols; /* of weights that lie side by side */
            multiply((gemm_problem){g, a + i * a_row, b + j, NULL, rows, cols, k, cols, a_row, a_col, n, 0, 1});
            for (int64_t r = 0; r < rows * cols; r += run) {
                const int64_t at = i * n + j + r / cols * n;
                sgd_step(w + at, v == NULL ? NULL : v + at, s == NULL ? NULL : s + at, g + r, w0 + at,
                         c == NULL ? NULL : c + at, sgd, run);
            }
        }
    }
}
