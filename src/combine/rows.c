/* rows.c: see rows.h. Four columns at a time as vectors of doubles, in tiles that stay in the cache. */
#include "combine/rows.h"

#include <string.h>

#define LANES 4
#define TILE 512 /* columns */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));
typedef double doubles __attribute__((vector_size(8 * LANES)));

/* These are inlined: what an ABI says of such vectors as arguments does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"

static inline doubles wide(const float *x) {
    floats narrow;
    memcpy(&narrow, x, sizeof(narrow));
    return __builtin_convertvector(narrow, doubles);
}

static inline double sum_of(doubles x) { return (x[0] + x[1]) + (x[2] + x[3]); }

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* sums(J) += x(n) · each of J rows that are c apart */
static inline void dots(double *sums, const float *x, const float *rows, int64_t c, int64_t n, const int J) {
    doubles acc[4] = {{0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        doubles a = wide(x + i);
        for (int j = 0; j < J; j++)
            acc[j] += a * wide(rows + j * c + i);
    }
    for (int j = 0; j < J; j++) {
        double sum = sum_of(acc[j]);
        for (int64_t rest = i; rest < n; rest++)
            sum += (double)x[rest] * rows[j * c + rest];
        sums[j] += sum;
    }
}

void efl_gram(double *gram, const float *rows, int64_t k, int64_t c) {
    for (int64_t start = 0; start < c; start += TILE) {
        const float *tile = rows + start; // (k, n) of rows that are c apart
        int64_t n = least(TILE, c - start);
        for (int64_t i = 0; i < k; i++) {
            int64_t j = 0;
            for (; j + 4 <= i + 1; j += 4)
                dots(gram + i * k + j, tile + i * c, tile + j * c, c, n, 4);
            for (; j <= i; j++)
                dots(gram + i * k + j, tile + i * c, tile + j * c, c, n, 1);
        }
    }
}

/* out(M,LANES) = weights(M,k) columns(k,LANES), rows of out and of columns c apart */
static inline void mix(float *out, const double *weights, const float *columns, int64_t k, int64_t c, const int M) {
    doubles acc[4] = {{0}};
    for (int64_t i = 0; i < k; i++) {
        doubles x = wide(columns + i * c);
        for (int m = 0; m < M; m++)
            acc[m] += weights[m * k + i] * x;
    }
    for (int m = 0; m < M; m++) {
        floats narrow = __builtin_convertvector(acc[m], floats);
        memcpy(out + m * c, &narrow, sizeof(narrow));
    }
}

static void mix_one(float *out, const double *weights, const float *column, int64_t m, int64_t k, int64_t c) {
    for (int64_t j = 0; j < m; j++) {
        double sum = 0;
        for (int64_t i = 0; i < k; i++)
            sum += weights[j * k + i] * column[i * c];
        out[j * c] = (float)sum;
    }
}

void efl_mix_rows(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c) {
    int64_t i = 0;
    for (; i + LANES <= c; i += LANES) {
        int64_t j = 0;
        for (; j + 4 <= m; j += 4)
            mix(out + j * c + i, weights + j * k, rows + i, k, c, 4);
        for (; j < m; j++)
            mix(out + j * c + i, weights + j * k, rows + i, k, c, 1);
    }
    for (; i < c; i++)
        mix_one(out + i, weights, rows + i, m, k, c);
}

/* low, high (n) = the smaller and the larger of each pair, by masks: compilers make branches of comparisons of floats */
static void order(float *restrict low, float *restrict high, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        floats a, b;
        memcpy(&a, low + i, sizeof(a));
        memcpy(&b, high + i, sizeof(b));
        bits swap = (b < a) & ((bits)a ^ (bits)b);
        a = (floats)((bits)a ^ swap);
        b = (floats)((bits)b ^ swap);
        memcpy(low + i, &a, sizeof(a));
        memcpy(high + i, &b, sizeof(b));
    }
    for (; i < n; i++) {
        float a = low[i], b = high[i];
        low[i] = b < a ? b : a;
        high[i] = b < a ? a : b;
    }
}

/* Batcher's odd-even mergesort (1968) of k rows of n, which are c apart: the same comparisons for every column. */
static void sort_tile(float *rows, int64_t k, int64_t c, int64_t n) {
    for (int64_t size = 1; size < k; size *= 2)
        for (int64_t apart = size; apart >= 1; apart /= 2)
            for (int64_t from = apart % size; from + apart < k; from += 2 * apart)
                for (int64_t i = from; i < least(from + apart, k - apart); i++)
                    if (i / (2 * size) == (i + apart) / (2 * size))
                        order(rows + i * c, rows + (i + apart) * c, n);
}

void efl_sort_columns(float *rows, int64_t k, int64_t c) {
    for (int64_t start = 0; start < c; start += TILE)
        sort_tile(rows + start, k, c, least(TILE, c - start));
}

void efl_mean_rows(float *out, const float *rows, int64_t first, int64_t last, int64_t c) {
    double count = (double)(last - first);
    for (int64_t start = 0; start < c; start += TILE) {
        int64_t n = least(TILE, c - start);
        double sums[TILE] = {0};
        for (int64_t row = first; row < last; row++)
            for (int64_t i = 0; i < n; i++)
                sums[i] += rows[row * c + start + i];
        for (int64_t i = 0; i < n; i++)
            out[start + i] = (float)(sums[i] / count);
    }
}

void efl_mean_nearest(float *out, const float *rows, int64_t k, int64_t keep, int64_t c) {
    for (int64_t i = 0; i < c; i++) {
        const float *column = rows + i; // its values are c apart
        double median = ((double)column[(k - 1) / 2 * c] + column[k / 2 * c]) / 2;
        int64_t first = 0;
        while (first + keep < k && column[(first + keep) * c] - median < median - column[first * c])
            first++;
        double sum = 0;
        for (int64_t row = first; row < first + keep; row++)
            sum += column[row * c];
        out[i] = (float)(sum / (double)keep);
    }
}
