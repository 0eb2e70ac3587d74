/* rows.c: see rows.h. In tiles of columns that stay in the cache. */
#include "combine/rows.h"
#include "kernels/kernels.h"

#include <string.h>

#define LANES 4
#define TILE 512 /* columns */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t bits __attribute__((vector_size(4 * LANES)));

static inline int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void efl_gram(double *gram, const float *rows, int64_t k, int64_t c) {
    efl_kernels->gram(gram, rows, k, c);
}

void efl_mix_rows(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c) {
    efl_kernels->weigh_rows(out, weights, rows, m, k, c);
}

/* low, high (n) = the smaller and the larger of each pair, by masks: compilers turn float comparisons into branches. */
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
                    if (i / (2 * size) == (i + apart) / (2 * size)) order(rows + i * c, rows + (i + apart) * c, n);
}

void efl_sort_columns(float *rows, int64_t k, int64_t c) {
    for (int64_t start = 0; start < c; start += TILE) sort_tile(rows + start, k, c, least(TILE, c - start));
}

void efl_mean_rows(float *out, const float *rows, int64_t first, int64_t last, int64_t c) {
    double count = (double)(last - first);
    for (int64_t start = 0; start < c; start += TILE) {
        int64_t n = least(TILE, c - start);
        double sums[TILE] = {0};
        for (int64_t row = first; row < last; row++)
            for (int64_t i = 0; i < n; i++) sums[i] += rows[row * c + start + i];
        for (int64_t i = 0; i < n; i++) out[start + i] = (float)(sums[i] / count);
    }
}

void efl_mean_nearest(float *out, const float *rows, int64_t k, int64_t keep, int64_t c) {
    for (int64_t i = 0; i < c; i++) {
        const float *column = rows + i; // its values are c apart
        double median = ((double)column[(k - 1) / 2 * c] + column[k / 2 * c]) / 2;
        int64_t first = 0;
        while (first + keep < k && column[(first + keep) * c] - median < median - column[first * c]) first++;
        double sum = 0;
        for (int64_t row = first; row < first + keep; row++) sum += column[row * c];
        out[i] = (float)(sum / (double)keep);
    }
}
