/* codecs.h: the whole C API of the codecs.
 *
 * Design:
 *   a) Functions here compute on arrays and keep no state; Cython checks that the arrays fit together.
 *   b) All results are contracts between machines: every instruction set gives the same bits, because devices encode
 *      what another machine decodes. So integers wherever possible, and no product fused with a sum.
 *   c) Whatever a payload says, memory stays safe: a decoder reads within its stream and writes n symbols.
 *
 * A symbol is one byte: 0; 2k - 1 for k steps; 2k for -k steps; EFL_ESCAPE for a magnitude above EFL_LARGEST_MAGNITUDE.
 * A symbol's context chooses the frequency table that codes it. The entropy coder is in rans.h.
 */
#ifndef EFL_CODECS_H
#define EFL_CODECS_H

#include "live.h"
#include "rans.h"

#include <stdint.h>

#define EFL_FRACTION_BITS 30 /* of the accumulator's fixed point */
#define EFL_ENERGY_CONTEXTS 32
#define EFL_ESCAPE 255
#define EFL_LARGEST_MAGNITUDE 127

/* CRC-32C (RFC 3720) of data, continuing from crc. efl_crc32c_init runs once, before the first call. */
void efl_crc32c_init(void);
uint32_t efl_crc32c(uint32_t crc, const uint8_t *data, int64_t size);
/* The same without the processor's instruction for it, and whether efl_crc32c uses that. */
uint32_t efl_crc32c_by_table(uint32_t crc, const uint8_t *data, int64_t size);
int efl_crc32c_by_instruction(void);

/* ---- the accumulator ------------------------------------------------------------------------------------- */

/* acc[i] += weight * llrint(x[i] * 2^30); payload is x, n little-endian floats at any address. The caller has checked
 * that |x| * 2^30 * weight + |acc| stays below 2^63. */
void efl_accumulate_f32(int64_t *acc, const uint8_t *payload, int64_t weight, int64_t n);
/* The largest |x|, or infinity if any x is not finite. */
float efl_peak_f32(const uint8_t *payload, int64_t n);
/* fixed(N) = weight * llrint(x * 2^30), 0 where that does not fit into an int64; the largest |x|, or infinity if any x
 * is not finite: what fixed is good for. */
float efl_fixed(int64_t *fixed, const float *x, int64_t weight, int64_t n);
/* delta(N) = local - global, rounded to a multiple of 2^-30. delta may be local. */
void efl_delta(float *delta, const float *local, const float *global, int64_t n);

/* ---- quantizers ------------------------------------------------------------------------------------------ */

/* The square root of the mean of x^2, summed in one order everywhere; 0 if n is 0. */
double efl_rms(const float *x, int64_t n);

/* For a quantized vector: how often each symbol occurs, and for magnitudes 1, 2 and above the sum of |x| - magnitude,
 * in 1/256 steps. Integers, so that every instruction set gets the same sums. */
typedef struct {
    uint64_t symbol[256];
    int64_t excess[3];
} efl_symbol_counts;

/* symbols(N) of x(N) with inverse = 1 / step: k = floor(|x| inverse + rounding) steps. Adds to counts. */
void efl_quantize(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                  int64_t n);
/* acc(N) += table[symbol], y(N) = table[symbol]; table(256) */
void efl_add_symbols(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n);
void efl_take_symbols(float *y, const uint8_t *symbols, const float *table, int64_t n);
/* levels(256) = 0 for symbols that no row of frequencies(tables,256) has. */
void efl_only_occurring(float *levels, const uint16_t *frequencies, int64_t tables);
/* The largest of bytes(N); 0 if N is 0. */
uint8_t efl_largest(const uint8_t *bytes, int64_t n);
/* counts(K,256) += how often each symbol occurs in each context, contexts(N) < K; NULL: all contexts are 0. */
void efl_count_symbols(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n);

/* symbols(N) of x(N) by stochastic rounding: k = floor(m) + (m - floor(m) > t) with m = |x| inverse, and t in [0, 1)
 * drawn from seed and coordinate. A context is min(octave of t, tables - 1); octave j is t in [2^-(j+1), 2^-j). */
void efl_coin_quantize(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n);
void efl_coin_contexts(uint8_t *contexts, int tables, uint64_t seed, int64_t start, int64_t n);

/* rows(R) += the sum of magnitudes of symbols(R,C) in each row, columns(C) += the same in each column. */
void efl_energy_sums(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C);
/* For coordinates i = start to start + n - 1 of a matrix with rows(R) and columns(C): s = contexts[i - start] +
 * rows[i / C] + columns[i % C], cut to 0..EFL_ENERGY_CONTEXTS - 1; contexts[i - start] = groups ? groups[s] : s. */
void efl_energy_contexts(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups, int64_t C,
                         int64_t start, int64_t n);
/* contexts(N) = groups[contexts]; groups(EFL_ENERGY_CONTEXTS), contexts below that. */
void efl_look_up_contexts(uint8_t *contexts, const uint8_t *groups, int64_t n);

#endif
