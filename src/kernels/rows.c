/* rows.c: functions of a matrix (M, N) whose columns are channels: sums of columns, and normalization.
 *
 * Channels come last, so a vector holds VL channels and no sum crosses lanes. A block of rows stays in the nearest
 * cache while its columns are walked, four rows at a time: one sum alone would wait for its own last addition.
 */
#define ROW_GROUP 4

/* Rows of n floats that fit in 16 KiB, a whole number of groups. */
INLINE int64_t rows_a_block(int64_t n) {
    const int64_t rows = 4096 / n / ROW_GROUP * ROW_GROUP;
    return rows < ROW_GROUP ? ROW_GROUP : rows;
}

/* For one block of rows and one vector of columns: sums += of `terms` values a row each. */
#define FOR_BLOCKS(first, rows, m, n)                                                                            \
    for (int64_t first = 0, size = rows_a_block(n), rows; rows = m - first < size ? m - first : size, first < m; \
         first += size)

static void add_rows(float *sum, const float *a, int64_t m, int64_t n) {
    FOR_BLOCKS(first, rows, m, n) {
        FOR_VECTORS(j, n) {
            const float *at = a + first * n + j;
            vf sums[ROW_GROUP] = {load_upto(sum + j, n - j)};
            int64_t i = 0;
            for (; i + ROW_GROUP <= rows; i += ROW_GROUP)
                for (int k = 0; k < ROW_GROUP; k++) sums[k] += load_upto(at + (i + k) * n, n - j);
            for (; i < rows; i++) sums[0] += load_upto(at + i * n, n - j);
            store_upto(sum + j, (sums[0] + sums[1]) + (sums[2] + sums[3]), n - j);
        }
    }
}

static float sum(const float *x, int64_t n) {
    vf sums[ROW_GROUP] = {{0}};
    int64_t i = 0;
    for (; i + ROW_GROUP * VL <= n; i += ROW_GROUP * VL)
        for (int k = 0; k < ROW_GROUP; k++) sums[k] += load(x + i + k * VL);
    for (; i < n; i += VL) sums[0] += load_upto(x + i, n - i);
    return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/* The first n lanes of v, the others 0. */
INLINE vf only(vf v, int64_t n) {
    for (int lane = 0; lane < VL; lane++)
        if (lane >= n) v[lane] = 0;
    return v;
}

static void layer_norm(float *y, float *stats, const float *x, const float *gamma, const float *beta, float epsilon,
                       int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++, x += n, y += n) {
        const float mean = sum(x, n) / (float)n;
        vf squares = {0};
        FOR_VECTORS(j, n) {
            vf d = load_upto(x + j, n - j) - mean;
            if (n - j < VL) d = only(d, n - j);
            squares += d * d;
        }
        const float scale = 1 / sqrtf(sum_lanes(squares) / (float)n + epsilon);
        stats[2 * i] = mean;
        stats[2 * i + 1] = scale;
        FOR_VECTORS(j, n) {
            const vf d = (load_upto(x + j, n - j) - mean) * scale;
            store_upto(y + j, d * load_upto(gamma + j, n - j) + load_upto(beta + j, n - j), n - j);
        }
    }
}

static void layer_norm_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x,
                                const float *stats, const float *gamma, int64_t m, int64_t n) {
    for (int64_t i = 0; i < m; i++, x += n, dy += n) {
        const float mean = stats[2 * i], scale = stats[2 * i + 1];
        vf sums = {0}, products = {0}; /* lanes beyond n stay 0: dy loads as 0 there */
        FOR_VECTORS(j, n) {
            const vf g = load_upto(dy + j, n - j), unit = (load_upto(x + j, n - j) - mean) * scale;
            const vf d = g * load_upto(gamma + j, n - j);
            if (dgamma != NULL) store_upto(dgamma + j, load_upto(dgamma + j, n - j) + g * unit, n - j);
            if (dbeta != NULL) store_upto(dbeta + j, load_upto(dbeta + j, n - j) + g, n - j);
            sums += d;
            products += d * unit;
        }
        if (dx == NULL) continue;
        const float a = sum_lanes(sums) / (float)n, b = sum_lanes(products) / (float)n;
        FOR_VECTORS(j, n) {
            const vf unit = (load_upto(x + j, n - j) - mean) * scale;
            const vf d = load_upto(dy + j, n - j) * load_upto(gamma + j, n - j);
            store_upto(dx + i * n + j, (d - a - unit * b) * scale, n - j);
        }
    }
}
