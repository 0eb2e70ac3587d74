/* symbols.c: the quantizers of codecs.h, as the kernels of this processor compute them. */
#include "../kernels/kernels.h"
#include "codecs.h"

void efl_quantize(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                  int64_t n) {
    efl_kernels->quantize(symbols, counts, x, inverse, rounding, n);
}

void efl_add_symbols(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n) {
    efl_kernels->add_symbols(acc, symbols, table, n);
}

void efl_take_symbols(float *y, const uint8_t *symbols, const float *table, int64_t n) {
    efl_kernels->take_symbols(y, symbols, table, n);
}

uint8_t efl_largest(const uint8_t *bytes, int64_t n) {
    return efl_kernels->largest_byte(bytes, n);
}

void efl_count_symbols(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n) {
    efl_kernels->count_symbols(counts, symbols, contexts, n);
}

void efl_coin_quantize(uint8_t *symbols, const float *x, float inverse, uint64_t seed, int64_t n) {
    efl_kernels->coin_quantize(symbols, x, inverse, seed, n);
}

void efl_coin_contexts(uint8_t *contexts, int tables, uint64_t seed, int64_t start, int64_t n) {
    efl_kernels->coin_contexts(contexts, tables, seed, start, n);
}

void efl_energy_sums(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C) {
    efl_kernels->energy_sums(rows, columns, symbols, R, C);
}

void efl_energy_contexts(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups, int64_t C,
                         int64_t start, int64_t n) {
    efl_kernels->energy_contexts(contexts, rows, columns, groups, C, start, n);
}

void efl_look_up_contexts(uint8_t *contexts, const uint8_t *groups, int64_t n) {
    efl_kernels->look_up_contexts(contexts, groups, n);
}

void efl_only_occurring(float *levels, const uint16_t *frequencies, int64_t tables) {
    uint16_t found[256] = {0};
    for (int64_t i = 0; i < tables; i++)
        for (int symbol = 0; symbol < 256; symbol++) found[symbol] |= frequencies[i * 256 + symbol];
    for (int symbol = 0; symbol < 256; symbol++)
        if (!found[symbol]) levels[symbol] = 0;
}
