/* gram.c: inner products and weighted sums of rows (combine/rows.h), in doubles. Included by kernels.c.
 *
 * These bits are the same for every instruction set. There are four partial sums whatever the width of a vector,
 * and a product of two floats, or of a float and a weight of 29 bits, is exact in a double: fused with a sum or not.
 */
#pragma GCC diagnostic ignored "-Wpsabi" /* all of it is inlined: it does not matter how such vectors are passed */

enum { WIDE = 4, ROWS_TILE = 512 };

#if defined(NEON_64) /* GCC keeps a vector that is longer than a register on the stack */
typedef struct {
    float64x2_t low, high;
} wide;

INLINE wide widened(const float *x) {
    const float32x4_t loaded = vld1q_f32(x);
    return (wide){vcvt_f64_f32(vget_low_f32(loaded)), vcvt_high_f64_f32(loaded)};
}

INLINE wide wide_same(double x) {
    return (wide){vdupq_n_f64(x), vdupq_n_f64(x)};
}

INLINE void wide_add_product(wide *sum, const wide *a, const wide *b) {
    sum->low += a->low * b->low;
    sum->high += a->high * b->high;
}

INLINE void wide_store(float *to, const wide *x) {
    vst1q_f32(to, vcvt_high_f32_f64(vcvt_f32_f64(x->low), x->high));
}

INLINE double wide_sum(const wide *x) {
    return (x->low[0] + x->low[1]) + (x->high[0] + x->high[1]);
}
#else
typedef float narrow __attribute__((vector_size(4 * WIDE)));
typedef double wide __attribute__((vector_size(8 * WIDE)));

INLINE wide widened(const float *x) {
    narrow loaded;
    memcpy(&loaded, x, sizeof loaded);
    return __builtin_convertvector(loaded, wide);
}

INLINE wide wide_same(double x) {
    return x - (wide){0};
}

INLINE void wide_add_product(wide *sum, const wide *a, const wide *b) {
    *sum += *a * *b;
}

INLINE void wide_store(float *to, const wide *x) {
    const narrow stored = __builtin_convertvector(*x, narrow);
    memcpy(to, &stored, sizeof stored);
}

INLINE double wide_sum(const wide *x) {
    return ((*x)[0] + (*x)[1]) + ((*x)[2] + (*x)[3]);
}
#endif

/* sums[i k + j] += row i of x · row j of y over n columns; I and J rows that are c apart */
INLINE void inner_products(double *sums, int64_t k, const float *x, const float *y, int64_t c, int64_t n, const int I,
                           const int J) {
    wide acc[2][4];
    for (int i = 0; i < I; i++)
        for (int j = 0; j < J; j++) acc[i][j] = wide_same(0);
    int64_t column = 0;
    for (; column + WIDE <= n; column += WIDE) {
        wide right[4];
        for (int j = 0; j < J; j++) right[j] = widened(y + j * c + column);
        for (int i = 0; i < I; i++) {
            const wide left = widened(x + i * c + column);
            for (int j = 0; j < J; j++) wide_add_product(&acc[i][j], &left, &right[j]);
        }
    }
    double total[2][4];
    for (int i = 0; i < I; i++)
        for (int j = 0; j < J; j++) total[i][j] = wide_sum(&acc[i][j]);
    for (int i = 0; i < I; i++)
        for (int j = 0; j < J; j++) {
            double sum = total[i][j];
            for (int64_t rest = column; rest < n; rest++) sum += (double)x[i * c + rest] * (double)y[j * c + rest];
            sums[i * k + j] += sum;
        }
}

static void gram(double *out, const float *rows, int64_t k, int64_t c) {
    for (int64_t start = 0; start < c; start += ROWS_TILE) {
        const float *tile = rows + start;
        const int64_t n = c - start < ROWS_TILE ? c - start : ROWS_TILE;
        for (int64_t i = 0; i < k; i += 2) {
            int64_t j = 0;
            for (; i + 1 < k && j + 4 <= i + 1; j += 4)
                inner_products(out + i * k + j, k, tile + i * c, tile + j * c, c, n, 2, 4);
            for (int64_t row = i; row < i + 2 && row < k; row++)
                for (int64_t other = j; other <= row; other++)
                    inner_products(out + row * k + other, k, tile + row * c, tile + other * c, c, n, 1, 1);
        }
    }
}

/* out (M, V vectors) = weights (M,k) rows (k, V vectors); rows of out and of rows are c apart */
INLINE void mixed(float *out, const double *weights, const float *rows, int64_t k, int64_t c, const int M,
                  const int V) {
    wide acc[4][2];
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) acc[m][v] = wide_same(0);
    for (int64_t i = 0; i < k; i++) {
        wide x[2];
        for (int v = 0; v < V; v++) x[v] = widened(rows + i * c + v * WIDE);
        for (int m = 0; m < M; m++) {
            const wide weight = wide_same(weights[m * k + i]);
            for (int v = 0; v < V; v++) wide_add_product(&acc[m][v], &weight, &x[v]);
        }
    }
    for (int m = 0; m < M; m++)
        for (int v = 0; v < V; v++) wide_store(out + m * c + v * WIDE, &acc[m][v]);
}

INLINE void mixed_rows(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c,
                       const int V) {
    int64_t row = 0;
    for (; row + 4 <= m; row += 4) mixed(out + row * c, weights + row * k, rows, k, c, 4, V);
    for (; row < m; row++) mixed(out + row * c, weights + row * k, rows, k, c, 1, V);
}

static void weigh_rows(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c) {
    int64_t column = 0;
#if VL > 4 || defined(NEON_64) /* eight sums of four doubles need as many registers of 32 bytes, or 16 of 16 */
    for (; column + 2 * WIDE <= c; column += 2 * WIDE) mixed_rows(out + column, weights, rows + column, m, k, c, 2);
#endif
    for (; column + WIDE <= c; column += WIDE) mixed_rows(out + column, weights, rows + column, m, k, c, 1);
    for (; column < c; column++)
        for (int64_t row = 0; row < m; row++) {
            double sum = 0;
            for (int64_t i = 0; i < k; i++) sum += weights[row * k + i] * (double)rows[i * c + column];
            out[row * c + column] = (float)sum;
        }
}
