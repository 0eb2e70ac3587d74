/* rans.c: see rans.h. It codes one state at a time, and is the reference for kernels/rans.c, which codes most of a
 * stream of 8, 16 or 32 lanes to the same bits. */
#include "rans.h"

#include "../kernels/kernels.h"

#include <string.h>

void efl_rans_normalise(efl_rans_table *table, const uint64_t counts[256]) {
    uint64_t total = 0;
    for (int symbol = 0; symbol < 256; symbol++) total += counts[symbol];
    memset(table->freq, 0, sizeof table->freq);
    if (total == 0) {
        table->freq[0] = EFL_RANS_TOTAL;
        return;
    }
    int sum = 0;
    for (int symbol = 0; symbol < 256; symbol++) {
        if (counts[symbol] == 0) continue;
        const double share = (double)counts[symbol] * EFL_RANS_TOTAL / (double)total;
        table->freq[symbol] = share < 1 ? 1 : (uint16_t)(share + 0.5);
        sum += table->freq[symbol];
    }
    /* One unit at a time, where the code grows least or shrinks most: d(-count log2 freq) = count / freq. */
    while (sum != EFL_RANS_TOTAL) {
        const int step = sum < EFL_RANS_TOTAL ? 1 : -1;
        int best = -1;
        double best_gain = 0;
        for (int symbol = 0; symbol < 256; symbol++) {
            if (table->freq[symbol] == 0 || (step < 0 && table->freq[symbol] == 1)) continue;
            const double gain = step * (double)counts[symbol] / (table->freq[symbol] + 0.5 * step);
            if (best < 0 || gain > best_gain) best = symbol, best_gain = gain;
        }
        table->freq[best] = (uint16_t)(table->freq[best] + step);
        sum += step;
    }
}

static int sums_up(const efl_rans_table *table) {
    uint32_t sum = 0;
    for (int symbol = 0; symbol < 256; symbol++) sum += table->freq[symbol];
    return sum == EFL_RANS_TOTAL;
}

int efl_rans_prepare_encoder(efl_rans_table *table) {
    uint32_t start = 0;
    for (int symbol = 0; symbol < 256; symbol++) {
        const uint32_t freq = table->freq[symbol];
        table->span[symbol] = freq | start << 16;
        table->reciprocal[symbol] = freq ? UINT32_MAX / freq : 0;
        start += freq;
    }
    return sums_up(table);
}

int efl_rans_prepare_decoder(const efl_rans_table *table, efl_rans_slots *slots) {
    if (!sums_up(table)) return 0;
    uint32_t *slot = slots->slot;
    for (uint32_t symbol = 0; symbol < 256; symbol++)
        for (uint32_t offset = 0; offset < table->freq[symbol]; offset++)
            *slot++ = symbol | offset << 8 | (table->freq[symbol] - 1u) << 20;
    return 1;
}

int64_t efl_rans_bound(int64_t n, int lanes) {
    return 4 * (int64_t)lanes + 2 * n + 64;
}

/* Small symbols are looked for from this frequency of symbol 0 on, in so many tables at most. */
enum { OFTEN = EFL_RANS_TOTAL / 8 * 7, KNOWN = 16 };

/* Whether that of symbol 0 is worth anything. */
static int worth_looking(const uint32_t zeros[KNOWN], int count) {
    uint32_t most = 0;
    for (int i = 0; i < KNOWN; i++) most = zeros[i] > most ? zeros[i] : most;
    return count <= KNOWN && most >= OFTEN;
}

/* Symbol n by the tables' one; the new end, or NULL if it has no frequency. */
static uint8_t *encode_one(uint32_t *state, uint8_t *end, const efl_rans_table *table, uint8_t symbol) {
    const uint32_t span = table->span[symbol], freq = span & 0xFFFF;
    uint32_t x = *state;
    if (freq == 0) return NULL;
    if (x >> 20 >= freq) {
        *--end = (uint8_t)(x >> 8);
        *--end = (uint8_t)x;
        x >>= 16;
    }
    *state = ((x / freq) << EFL_RANS_BITS) + x % freq + (span >> 16);
    return end;
}

static uint8_t *encode_symbols(const efl_rans_run *run, uint32_t *state, uint8_t *end, const uint8_t *symbols,
                               const efl_rans_table *tables) {
    const uint8_t *contexts = run->contexts;
    for (int64_t n = run->n; n > 0 && end != NULL;) {
        if (run->lanes > 1 && n % run->lanes == 0 && efl_kernels->rans_encode != NULL) {
            efl_rans_run rest = *run;
            rest.n = n;
            return efl_kernels->rans_encode(&rest, state, end, symbols, tables->span, tables->reciprocal,
                                            sizeof *tables / sizeof *tables->span);
        }
        n--;
        end = encode_one(&state[n % run->lanes], end, &tables[contexts ? contexts[n] : 0], symbols[n]);
    }
    return end;
}

uint8_t *efl_rans_encode(uint8_t *end, const uint8_t *symbols, const uint8_t *contexts, int64_t n,
                         const efl_rans_table *tables, int count, int lanes) {
    uint32_t state[EFL_RANS_MAX_LANES], starts[1][KNOWN] = {{0}}, reciprocals[KNOWN] = {0};
    efl_rans_run run = {lanes, n, contexts, NULL, reciprocals};
    for (int lane = 0; lane < lanes; lane++) state[lane] = EFL_RANS_LOW;
    for (int i = 0; i < count && i < KNOWN; i++)
        starts[0][i] = tables[i].freq[0], reciprocals[i] = tables[i].reciprocal[0];
    if (worth_looking(starts[0], count)) run.starts = starts;
    if ((end = encode_symbols(&run, state, end, symbols, tables)) == NULL) return NULL;
    for (int lane = lanes - 1; lane >= 0; lane--)
        for (int byte = 3; byte >= 0; byte--) *--end = (uint8_t)(state[lane] >> (8 * byte));
    return end;
}

int efl_rans_begin(efl_rans_decoder *decoder, const uint8_t *stream, const uint8_t *end, int lanes) {
    if (end - stream < 4 * lanes) return 0;
    decoder->lanes = lanes;
    decoder->end = end;
    for (int lane = 0; lane < lanes; lane++, stream += 4) {
        decoder->state[lane] = stream[0] | (uint32_t)stream[1] << 8 | (uint32_t)stream[2] << 16 |
                               (uint32_t)stream[3] << 24;
        if (decoder->state[lane] < EFL_RANS_LOW) return 0;
    }
    decoder->next = stream;
    return 1;
}

/* As many symbols, one at a time; 0 if the words run out. */
static int decode_some(efl_rans_decoder *decoder, uint8_t *symbols, const uint8_t *contexts, int64_t from, int64_t to,
                       const efl_rans_slots *slots) {
    for (int64_t i = from; i < to; i++) {
        uint32_t *state = decoder->state + i % decoder->lanes;
        const uint32_t slot = slots[contexts ? contexts[i] : 0].slot[*state & (EFL_RANS_TOTAL - 1)];
        uint32_t x = ((slot >> 20) + 1) * (*state >> EFL_RANS_BITS) + ((slot >> 8) & 0xFFF);
        if (x < EFL_RANS_LOW) {
            if (decoder->end - decoder->next < 2) return 0;
            x = x << 16 | decoder->next[0] | (uint32_t)decoder->next[1] << 8;
            decoder->next += 2;
        }
        *state = x;
        symbols[i] = (uint8_t)slot;
    }
    return 1;
}

/* The kernel stops where the words may run out, and may go on after one step more: after the last words, there may be
 * thousands of zeros. */
static int decode_symbols(efl_rans_decoder *decoder, uint8_t *symbols, const efl_rans_run *run,
                          const efl_rans_slots *slots) {
    const int64_t n = run->n, step = run->lanes;
    for (int64_t i = 0; i < n;) {
        efl_rans_run rest = *run;
        rest.n = n - i;
        if (run->contexts != NULL) rest.contexts += i;
        i += efl_kernels->rans_decode(&rest, decoder->state, &decoder->next, decoder->end, symbols + i, slots->slot);
        const int64_t stop = n - i < step ? n : i + step;
        if (!decode_some(decoder, symbols, run->contexts, i, stop, slots)) return 0;
        i = stop;
    }
    return 1;
}

/* starts of efl_rans_run, column `table`. */
static void find_starts(uint32_t starts[EFL_RANS_SMALL][KNOWN], const uint32_t *slots, int table) {
    uint32_t at = 0;
    for (uint32_t k = 0; k < EFL_RANS_SMALL; k++) {
        if (at < EFL_RANS_TOTAL && (slots[at] & 0xFF) == k) at += (slots[at] >> 20) + 1;
        starts[k][table] = at;
    }
}

int efl_rans_decode(efl_rans_decoder *decoder, uint8_t *symbols, const uint8_t *contexts, int64_t n,
                    const efl_rans_slots *slots, int count) {
    uint32_t starts[EFL_RANS_SMALL][KNOWN] = {{0}};
    efl_rans_run run = {decoder->lanes, n, contexts, NULL, NULL};
    if (decoder->lanes == 1 || efl_kernels->rans_decode == NULL)
        return decode_some(decoder, symbols, contexts, 0, n, slots);
    for (int i = 0; i < count && i < KNOWN; i++) find_starts(starts, slots[i].slot, i);
    if (worth_looking(starts[0], count)) run.starts = starts;
    return decode_symbols(decoder, symbols, &run, slots);
}

int efl_rans_ended(const efl_rans_decoder *decoder) {
    for (int lane = 0; lane < decoder->lanes; lane++)
        if (decoder->state[lane] != EFL_RANS_LOW) return 0;
    return decoder->next == decoder->end;
}
