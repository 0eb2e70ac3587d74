/* conv.c: products of windows. Convolution, depthwise convolution and the gradients of both are one loop nest
 * (see efl_product); only the addresses differ, so nothing is copied into columns.
 *
 * A tile of the result stays in registers while a block of K streams by. The block's rows of b stay in the first
 * cache meanwhile, for all tiles. A tile's rows are pointers: they may be pixels of several rows or samples.
 */

#if defined(__AVX512F__) || defined(NEON_64)
#define PRODUCT_COLS 4 /* vectors in a tile's row, beside 6 rows of them: 24 sums of 32 registers */
#else
#define PRODUCT_COLS 2 /* 12 sums of 16 */
#endif
#if defined(FEW_REGISTERS)
#define PRODUCT_ROWS(cols) ((cols) == PRODUCT_COLS ? GEMM_ROWS : 4)
#define CHANNEL_ROWS 5
#else
#define PRODUCT_ROWS(cols) ((cols) == PRODUCT_COLS ? 6 : 8)
#define CHANNEL_ROWS 9 /* the taps of a 3 x 3 window */
#endif
#define PRODUCT_BLOCK (24 * 1024) /* bytes of b in the first cache */

/* What a tile starts from: c, the bias, or nothing. */
INLINE void tile_start(vf sum[CHANNEL_ROWS][PRODUCT_COLS], const int rows, const int cols, const int partial,
                       const efl_product *p, float *const *out, int64_t column, int64_t tail) {
#pragma GCC unroll 9
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++) {
            const int whole = !partial || j < cols - 1;
            const int64_t at = column + j * VL;
            if (p->accumulate)
                sum[i][j] = whole ? load(out[i] + at) : load_n(out[i] + at, tail);
            else if (p->bias != NULL)
                sum[i][j] = whole ? load(p->bias + at) : load_n(p->bias + at, tail);
            else
                sum[i][j] = splat(0);
        }
    }
}

/* One step of K. Matrix products multiply left[i][at] by vectors of b; products of channels multiply vectors of
 * both. */
INLINE void tile_step(vf sum[CHANNEL_ROWS][PRODUCT_COLS], const int rows, const int cols, const int partial,
                      const int channels, const float *const *left, int64_t at, const float *b, int64_t tail) {
    vf right[PRODUCT_COLS];
#pragma GCC unroll 4
    for (int j = 0; j < cols; j++) right[j] = partial && j == cols - 1 ? load_n(b + j * VL, tail) : load(b + j * VL);
#pragma GCC unroll 9
    for (int i = 0; i < rows; i++) {
        vf factor;
        if (channels)
            factor = partial ? load_n(left[i] + at, tail) : load(left[i] + at);
        else
            factor = splat(left[i][at]);
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++) sum[i][j] = add_product(sum[i][j], factor, right[j]);
    }
}

/* One tile: out[i](N) of `rows` rows and `cols` vectors, the last one of `tail` lanes if `partial`; `steps` of the
 * inner level of K, 0: as many as p says. What is const is a constant in every call, so that the sums are registers.
 * A row may be there twice: it is stored twice. */
INLINE void product_tile(const int rows, const int cols, const int partial, const int channels, const int steps,
                         const efl_product *p, const float *const *left, float *const *out, int64_t column,
                         int64_t tail) {
    const int64_t left_step = p->a_k[2], right_step = p->b_k[2];
    vf sum[CHANNEL_ROWS][PRODUCT_COLS];
    tile_start(sum, rows, cols, partial, p, out, column, tail);
    for (int64_t outer = 0; outer < p->k[0]; outer++) {
        for (int64_t middle = 0; middle < p->k[1]; middle++) {
            int64_t at = outer * p->a_k[0] + middle * p->a_k[1] + (channels ? column : 0);
            const float *b = p->b + column + outer * p->b_k[0] + middle * p->b_k[1];
#if defined(NEON_64)
            const ordered_operands inner_steps = {left, b, at, left_step, right_step, p->k[2]};
            if (!channels) {
                ordered_steps(sum, rows, cols, partial, tail, &inner_steps);
                continue;
            }
#endif
#pragma GCC unroll 3
            for (int64_t inner = steps ? steps : p->k[2]; inner > 0; inner--, at += left_step, b += right_step)
                tile_step(sum, rows, cols, partial, channels, left, at, b, tail);
        }
    }
#pragma GCC unroll 9
    for (int i = 0; i < rows; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < cols; j++) {
            if (partial && j == cols - 1)
                store_n(out[i] + column + j * VL, sum[i][j], tail);
            else
                store(out[i] + column + j * VL, sum[i][j]);
        }
    }
}

/* Where a walk over the rows of the result stands. */
typedef struct {
    int64_t middle, inner, left; /* left: rows from here on */
    const float *a;
    float *c;
} product_walk;

INLINE product_walk walk_from_start(const efl_product *p) {
    return (product_walk){.left = p->m[0] * p->m[1] * p->m[2], .a = p->a, .c = p->c};
}

/* The next `rows` rows; where there are fewer, the last one again and again. */
INLINE void walk(product_walk *w, const efl_product *p, const float **left, float **out, const int rows) {
#pragma GCC unroll 9
    for (int i = 0; i < rows; i++) {
        left[i] = w->a;
        out[i] = w->c;
        if (w->left == 1) continue;
        w->left--;
        w->a += p->a_m[2];
        w->c += p->c_m[2];
        if (++w->inner < p->m[2]) continue;
        w->inner = 0;
        w->a += p->a_m[1] - p->m[2] * p->a_m[2];
        w->c += p->c_m[1] - p->m[2] * p->c_m[2];
        if (++w->middle < p->m[1]) continue;
        w->middle = 0;
        w->a += p->a_m[0] - p->m[1] * p->a_m[1];
        w->c += p->c_m[0] - p->m[1] * p->c_m[1];
    }
}

/* All tiles of one column panel, which is cols vectors wide. */
#define PRODUCT_PANEL(cols, partial)                                                                   \
    static void product_panel_##cols##_##partial(const efl_product *p, int64_t column, int64_t tail) { \
        const float *left[PRODUCT_ROWS(cols)];                                                         \
        float *out[PRODUCT_ROWS(cols)];                                                                \
        product_walk w = walk_from_start(p);                                                           \
        for (int64_t rows = w.left; rows > 0; rows -= PRODUCT_ROWS(cols)) {                            \
            walk(&w, p, left, out, PRODUCT_ROWS(cols));                                                \
            product_tile(PRODUCT_ROWS(cols), cols, partial, 0, 0, p, left, out, column, tail);         \
        }                                                                                              \
    }

PRODUCT_PANEL(1, 0)
PRODUCT_PANEL(1, 1)
PRODUCT_PANEL(2, 0)
PRODUCT_PANEL(2, 1)
#if PRODUCT_COLS == 4
PRODUCT_PANEL(3, 0)
PRODUCT_PANEL(3, 1)
PRODUCT_PANEL(4, 0)
PRODUCT_PANEL(4, 1)
#endif

static void (*const product_panels[PRODUCT_COLS][2])(const efl_product *, int64_t, int64_t) = {
    {product_panel_1_0, product_panel_1_1},
    {product_panel_2_0, product_panel_2_1},
#if PRODUCT_COLS == 4
    {product_panel_3_0, product_panel_3_1},
    {product_panel_4_0, product_panel_4_1},
#endif
};

/* Fewer, longer runs of K: a level of one step goes, two that follow each other in memory become one. */
static void join_levels(efl_product *p) {
    for (int turn = 0; turn < 2; turn++) {
        const int whole = p->k[2] * p->a_k[2] == p->a_k[1] && p->k[2] * p->b_k[2] == p->b_k[1];
        if (p->k[2] != 1 && p->k[1] != 1 && !whole) return;
        if (p->k[2] == 1) {
            p->a_k[2] = p->a_k[1];
            p->b_k[2] = p->b_k[1];
        }
        p->k[2] *= p->k[1];
        p->k[1] = p->k[0];
        p->a_k[1] = p->a_k[0];
        p->b_k[1] = p->b_k[0];
        p->k[0] = 1;
    }
}

/* How many steps of a level make a block of at most `most`, in blocks of about equal size. */
static int64_t block_of(int64_t extent, int64_t most) {
    if (most >= extent) return extent;
    if (most < 1) return 1;
    const int64_t blocks = (extent + most - 1) / most;
    return (extent + blocks - 1) / blocks;
}

static void product_columns(const efl_product *whole, int64_t column, int64_t width) {
    const int64_t cols = (width + VL - 1) / VL, tail = width % VL, most = PRODUCT_BLOCK / (cols * VL * 4);
    const int64_t *k = whole->k;
    const int64_t step[3] = {block_of(k[0], most / (k[1] * k[2])), block_of(k[1], most / k[2]), block_of(k[2], most)};
    efl_product p = *whole;
    for (int64_t outer = 0; outer < k[0]; outer += step[0]) {
        p.k[0] = k[0] - outer < step[0] ? k[0] - outer : step[0];
        for (int64_t middle = 0; middle < k[1]; middle += step[1]) {
            p.k[1] = k[1] - middle < step[1] ? k[1] - middle : step[1];
            for (int64_t inner = 0; inner < k[2]; inner += step[2]) {
                p.k[2] = k[2] - inner < step[2] ? k[2] - inner : step[2];
                p.a = whole->a + outer * p.a_k[0] + middle * p.a_k[1] + inner * p.a_k[2];
                p.b = whole->b + outer * p.b_k[0] + middle * p.b_k[1] + inner * p.b_k[2];
                product_panels[cols - 1][tail != 0](&p, column, tail);
                p.accumulate = 1;
            }
        }
    }
}

static void product(const efl_product *given) {
    efl_product p = *given;
    join_levels(&p);
    for (int64_t j = 0; j < p.n; j += PRODUCT_COLS * VL)
        product_columns(&p, j, p.n - j < PRODUCT_COLS * VL ? p.n - j : PRODUCT_COLS * VL);
}

/* Not inline: the tile needs all registers for itself. */
static __attribute__((noinline)) void channel_tiles(const efl_product *p, const float *const *left, float *const *out) {
    int64_t j = 0;
    if (p->k[2] == 3) /* short loops cost more than what they do, and most windows are 3 wide */
        for (; j + VL <= p->n; j += VL) product_tile(CHANNEL_ROWS, 1, 0, 1, 3, p, left, out, j, 0);
    for (; j + VL <= p->n; j += VL) product_tile(CHANNEL_ROWS, 1, 0, 1, 0, p, left, out, j, 0);
    if (j < p->n) product_tile(CHANNEL_ROWS, 1, 1, 1, 0, p, left, out, j, p->n - j);
}

static void product_of_channels(const efl_product *given) {
    const float *left[CHANNEL_ROWS];
    float *out[CHANNEL_ROWS];
    efl_product p = *given;
    join_levels(&p);
    product_walk w = walk_from_start(&p);
    for (int64_t rows = w.left; rows > 0; rows -= CHANNEL_ROWS) {
        walk(&w, &p, left, out, CHANNEL_ROWS);
        channel_tiles(&p, left, out);
    }
}

/* Blocks of both matrices that share cache lines go together. */
static void transpose(float *y, const float *x, int64_t count, int64_t rows, int64_t cols) {
    enum { SIDE = 16 };
    for (int64_t matrix = 0; matrix < count; matrix++, x += rows * cols, y += rows * cols)
        for (int64_t top = 0; top < rows; top += SIDE)
            for (int64_t left = 0; left < cols; left += SIDE)
                turn(y + left * rows + top, rows, x + top * cols + left, cols, rows - top < SIDE ? rows - top : SIDE,
                     cols - left < SIDE ? cols - left : SIDE, 0);
}
