/* rows.h: what rules that see every update of a round compute on them, (k,c) float32: k updates, c neighbouring params.
 *
 * All sums are of doubles, in one order that depends on k and c alone, and no product is fused with a sum: every
 * machine gets the same bits. Nothing is allocated. The caller has checked that all values are finite.
 */
#ifndef EFL_ROWS_H
#define EFL_ROWS_H

#include <stdint.h>

/* gram(k,k) += rows rowsᵀ, below the diagonal and on it. */
void efl_gram(double *gram, const float *rows, int64_t k, int64_t c);
/* out(m,c) = weights(m,k) rows(k,c). A weight has at most 29 significant bits: its product with a float is exact. */
void efl_mix_rows(float *out, const double *weights, const float *rows, int64_t m, int64_t k, int64_t c);
/* Sorts each column, smallest first. */
void efl_sort_columns(float *rows, int64_t k, int64_t c);
/* out(c) = the mean of rows first to last - 1 */
void efl_mean_rows(float *out, const float *rows, int64_t first, int64_t last, int64_t c);
/* out(c) = the mean of the keep values nearest to each column's median in sorted columns; of two as near the smaller */
void efl_mean_nearest(float *out, const float *rows, int64_t k, int64_t keep, int64_t c);

#endif
