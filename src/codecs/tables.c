/* tables.c: frequency tables of the entropy coder in a payload: 256 frequencies that sum to 4096, in a few bytes. Two
 * kinds; `efl_table_best` writes the one whose table and symbols are shorter together:
 *
 *     explicit    0 u8 | last symbol u8 | frequencies of symbols 0 to last, one byte below 128, else two
 *     geometric   1 u8 | zero u8 | decay u8 | last u8, see `efl_table_geometric`
 *
 * A geometric table suits tiny models, whose update would be mostly tables. Reading a table is integer arithmetic, so
 * every machine reads the same frequencies. Which one is written follows from logarithms, and may differ by machine.
 */
#include "tables.h"

#include "codecs.h"

#include <math.h>
#include <string.h>

enum { EXPLICIT, GEOMETRIC, LONG = 1 << 14 /* symbols; then an explicit table is negligible */ };

static const double IMPOSSIBLE = 1e30; /* bits of a symbol without a frequency */

int efl_table_geometric(uint16_t freq[256], int zero, int decay, int last) {
    const int escape = last >> 7, room = EFL_RANS_TOTAL - 16 * zero - 8;
    uint64_t weight[127], total = 0;
    int rest = EFL_RANS_TOTAL - escape;
    last &= 127;
    for (int k = 0; k < last; k++) {
        weight[k] = k ? weight[k - 1] * (uint64_t)decay >> 8 : (uint64_t)1 << 32;
        total += 2 * weight[k];
    }
    memset(freq, 0, 256 * sizeof *freq);
    for (int k = 0; k < last; k++) {
        const uint64_t share = room > 0 ? (uint64_t)room * weight[k] / total : 0;
        const uint16_t own = (uint16_t)(share ? share : 1);
        freq[2 * k + 1] = freq[2 * k + 2] = own;
        rest -= 2 * own;
    }
    if (rest < 1) return 0;
    freq[0] = (uint16_t)rest;
    freq[EFL_ESCAPE] = (uint16_t)escape;
    return 1;
}

static int64_t read_explicit(uint16_t freq[256], const uint8_t *data, int64_t size) {
    int64_t at = 2;
    uint32_t sum = 0;
    if (size < 2) return EFL_TABLE_CUT_OFF;
    memset(freq, 0, 256 * sizeof *freq);
    for (int symbol = 0; symbol <= data[1]; symbol++) {
        if (at >= size) return EFL_TABLE_CUT_OFF;
        uint32_t own = data[at++];
        if (own >= 128) {
            if (at >= size) return EFL_TABLE_CUT_OFF;
            own = (own & 127) << 8 | data[at++];
        }
        freq[symbol] = (uint16_t)own;
        sum += own;
    }
    return sum == EFL_RANS_TOTAL ? at : EFL_TABLE_SUM;
}

int64_t efl_table_read(uint16_t freq[256], const uint8_t *data, int64_t size) {
    if (size < 1) return EFL_TABLE_CUT_OFF;
    if (data[0] == EXPLICIT) return read_explicit(freq, data, size);
    if (data[0] != GEOMETRIC) return EFL_TABLE_KIND;
    if (size < 4) return EFL_TABLE_CUT_OFF;
    return efl_table_geometric(freq, data[1], data[2], data[3]) ? 4 : EFL_TABLE_NO_ZERO;
}

int64_t efl_table_write(uint8_t out[EFL_TABLE_SIZE], const uint16_t freq[256]) {
    int last = 255;
    int64_t at = 2;
    while (last > 0 && freq[last] == 0) last--;
    out[0] = EXPLICIT, out[1] = (uint8_t)last;
    for (int symbol = 0; symbol <= last; symbol++) {
        if (freq[symbol] >= 128) out[at++] = (uint8_t)(128 | freq[symbol] >> 8);
        out[at++] = (uint8_t)freq[symbol];
    }
    return at;
}

/* The bits of symbols that occur so often; at least IMPOSSIBLE if one of them has frequency 0. */
static double cost_bits(const uint64_t counts[256], const uint16_t freq[256]) {
    double bits = 0;
    for (int symbol = 0; symbol < 256; symbol++)
        if (counts[symbol])
            bits += (double)counts[symbol] * (freq[symbol] ? EFL_RANS_BITS - log2(freq[symbol]) : IMPOSSIBLE);
    return bits;
}

static int within_byte(double value) {
    const double rounded = rint(value);
    return rounded < 0 ? 0 : rounded > 255 ? 255 : (int)rounded;
}

/* The symbols of a quantizer, as a geometric table sees them. */
typedef struct {
    int last;       /* the largest magnitude, and 128 if there are escapes */
    double zero;    /* 256 times the share of zeros */
    double decay;   /* 256 times the ratio of neighbouring magnitudes' counts */
} efl_slope;

static efl_slope slope_of(const uint64_t counts[256]) {
    efl_slope slope = {0, 0, 0};
    uint64_t total = counts[EFL_ESCAPE], others = 0, sum = 0;
    for (int symbol = 0; symbol < EFL_ESCAPE; symbol++) {
        const int magnitude = (symbol + 1) / 2;
        if (counts[symbol]) slope.last = magnitude;
        total += counts[symbol], others += symbol ? counts[symbol] : 0;
        sum += counts[symbol] * (uint64_t)magnitude;
    }
    const double mean = (double)sum / (double)(others ? others : 1);
    slope.zero = 256 * ((double)counts[0] / (double)(total ? total : 1));
    slope.decay = mean > 1 ? 256 * (1 - 1 / mean) : 0;
    if (counts[EFL_ESCAPE]) slope.last |= 128;
    return slope;
}

/* The best geometric table near what follows from counts; its bits, which may be IMPOSSIBLE. */
static double fit_geometric(uint8_t out[4], uint16_t best[256], const uint64_t counts[256]) {
    static const int zeros[] = {-1, 0, 1}, decays[] = {-24, -8, 0, 8};
    const efl_slope slope = slope_of(counts);
    double least = IMPOSSIBLE;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) {
            const int zero = within_byte(rint(slope.zero - 0.5) + zeros[i]);
            const int decay = within_byte(rint(slope.decay) + decays[j]);
            uint16_t freq[256];
            if (!efl_table_geometric(freq, zero, decay, slope.last)) continue;
            const double bits = cost_bits(counts, freq);
            if (bits >= least) continue;
            least = bits;
            memcpy(best, freq, sizeof freq);
            out[0] = GEOMETRIC, out[1] = (uint8_t)zero, out[2] = (uint8_t)decay, out[3] = (uint8_t)slope.last;
        }
    return least;
}

int64_t efl_table_best(uint8_t out[EFL_TABLE_SIZE], uint16_t freq[256], double *bits, const uint64_t counts[256]) {
    efl_rans_table table;
    uint64_t total = 0;
    uint8_t parameters[4];
    uint16_t geometric[256];
    efl_rans_normalise(&table, counts);
    memcpy(freq, table.freq, sizeof table.freq);
    for (int symbol = 0; symbol < 256; symbol++) total += counts[symbol];
    const int64_t size = efl_table_write(out, freq);
    *bits = cost_bits(counts, freq);
    if (size <= 6 || total >= LONG) return size;
    const double other = fit_geometric(parameters, geometric, counts);
    if (other >= IMPOSSIBLE || 8 * 4 + other >= 8 * (double)size + *bits) return size;
    *bits = other;
    memcpy(freq, geometric, sizeof geometric);
    memcpy(out, parameters, 4);
    return 4;
}

/* ---- which contexts share a table */

/* k log2 k */
static double weight_bits(double k) {
    return k > 1 ? k * log2(k) : 0;
}

/* About the bits of contexts i to j - 1 with one table, including the table, at cost[i][j]. */
static void group_costs(double cost[33][33], const uint64_t *counts) {
    int used = 0;
    for (int at = 0; at < 32 * 256; at++)
        if (counts[at] && used <= at % 256) used = at % 256 + 1;
    for (int i = 0; i < 32; i++) {
        uint64_t found[256] = {0}, total = 0;
        for (int j = i; j < 32; j++) {
            double bits = 0;
            int occurring = 0;
            for (int symbol = 0; symbol < used; symbol++) {
                found[symbol] += counts[j * 256 + symbol], total += counts[j * 256 + symbol];
                occurring += found[symbol] > 0;
                bits -= weight_bits((double)found[symbol]);
            }
            cost[i][j + 1] = weight_bits((double)total) + bits + 8 * (4 + occurring < 12 ? 4 + occurring : 12);
        }
    }
}

double efl_table_groups(uint8_t groups[EFL_ENERGY_CONTEXTS], const uint64_t *counts) {
    double cost[33][33], best[33],
        totals = INFINITY; /* best[j]: the bits of contexts 0 to j - 1 with the tables so far */
    int came[EFL_MAX_TABLES][33], tables = 0;
    group_costs(cost, counts);
    for (int j = 0; j <= 32; j++) best[j] = j ? INFINITY : 0;
    for (int table = 0; table < EFL_MAX_TABLES; table++) {
        for (int j = 32; j >= 0; j--) {
            double least = INFINITY;
            came[table][j] = 0;
            for (int i = 0; i < j; i++)
                if (best[i] + cost[i][j] < least) least = best[i] + cost[i][j], came[table][j] = i;
            best[j] = least;
        }
        if (best[32] < totals) totals = best[32], tables = table + 1;
    }
    for (int stop = 32; tables > 0; tables--) {
        const int start = came[tables - 1][stop];
        for (int i = start; i < stop; i++) groups[i] = (uint8_t)(tables - 1);
        stop = start;
    }
    return totals;
}
