/* symbols.c: between numbers and a quantizer's symbols. Included by kernels.c.
 *
 * These bits are a contract between machines: no product here may be fused with a sum.
 */
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")

enum { SYMBOLS_AT_ONCE = 4096 };

/* k(N) = the magnitudes of x in steps, at most EFL_LARGEST_MAGNITUDE + 1; excess(N) = |x| - k, in 1/256 steps. */
static void magnitudes(int32_t *k, int32_t *excess, const float *x, float inverse, float rounding, int64_t n) {
    const float most = EFL_LARGEST_MAGNITUDE + 1;
    for (int64_t i = 0; i < n; i++) {
        const float steps = fabsf(x[i]) * inverse;
        const float capped = steps < most ? steps : most;
        k[i] = (int32_t)(capped + rounding);
        excess[i] = (int32_t)(capped * 256.0f) - 256 * k[i];
    }
}

static void quantize(uint8_t *symbols, efl_symbol_counts *counts, const float *x, float inverse, float rounding,
                     int64_t n) {
    int32_t k[SYMBOLS_AT_ONCE], excess[SYMBOLS_AT_ONCE];
    uint32_t histogram[4][256] = {{0}};
    for (int64_t done = 0; done < n; done += SYMBOLS_AT_ONCE) {
        const int64_t size = n - done < SYMBOLS_AT_ONCE ? n - done : SYMBOLS_AT_ONCE;
        magnitudes(k, excess, x + done, inverse, rounding, size);
        int32_t sums[3] = {0};
        for (int64_t i = 0; i < size; i++) {
            sums[0] += k[i] == 1 ? excess[i] : 0;
            sums[1] += k[i] == 2 ? excess[i] : 0;
            sums[2] += k[i] > 2 ? excess[i] : 0;
        }
        for (int64_t i = 0; i < size; i++) {
            const int32_t symbol = 2 * k[i] - (x[done + i] > 0 && k[i] > 0);
            symbols[done + i] = (uint8_t)(symbol < EFL_ESCAPE ? symbol : EFL_ESCAPE);
        }
        for (int64_t i = 0; i < size; i++) histogram[i & 3][symbols[done + i]]++;
        for (int c = 0; c < 3; c++) counts->excess[c] += sums[c];
        if ((done / SYMBOLS_AT_ONCE & 0xFFFF) == 0xFFFF || done + size == n) {
            for (int symbol = 0; symbol < 256; symbol++)
                for (int way = 0; way < 4; way++) {
                    counts->symbol[symbol] += histogram[way][symbol];
                    histogram[way][symbol] = 0;
                }
        }
    }
}

/* counts(K,256) += how often each symbol occurs in each context. A context of NULL is 0. */
static void count_symbols(uint64_t *counts, const uint8_t *symbols, const uint8_t *contexts, int64_t n) {
    for (int64_t i = 0; i < n; i++) counts[(contexts ? contexts[i] : 0) << 8 | symbols[i]]++;
}

static void add_symbols(int64_t *acc, const uint8_t *symbols, const int64_t *table, int64_t n) {
    for (int64_t i = 0; i < n; i++) acc[i] = (int64_t)((uint64_t)acc[i] + (uint64_t)table[symbols[i]]);
}

static void take_symbols(float *y, const uint8_t *symbols, const float *table, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = table[symbols[i]];
}

#pragma GCC pop_options
