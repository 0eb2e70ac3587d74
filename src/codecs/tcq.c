/* tcq.c: see tcq.h. The search for the best levels is kernels/tcq.c. */
#include "tcq.h"

enum { LANES = EFL_RANS_MAX_LANES, ESCAPE = 255 };

/* b of a level: whether k in level = 2 k + z is odd. */
static int branch_of(int k) {
    return k & 1;
}

void efl_tcq_symbols(uint8_t *symbols, uint8_t *contexts, const int8_t *levels, int64_t n) {
    uint8_t state[LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        const int lane = (int)(i % LANES), z = state[lane] & 1, level = levels[i], escape = level == EFL_TCQ_ESCAPE;
        const int k = (level - z) >> 1;
        symbols[i] = (uint8_t)(escape ? ESCAPE : k > 0 ? 2 * k - 1 : -2 * k);
        contexts[i] = (uint8_t)z;
        state[lane] = (uint8_t)efl_tcq_next(state[lane], escape ? 0 : branch_of(k));
    }
}

void efl_tcq_excess(int64_t counts[3], int64_t sums[3], const float *x, const int8_t *levels, float inverse, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int level = levels[i], size = level < 0 ? -level : level;
        if (size == 0 || level == EFL_TCQ_ESCAPE) continue;
        const float steps = x[i] * inverse * 256.0f;
        const int group = size < 3 ? size - 1 : 2;
        counts[group]++;
        sums[group] += (int32_t)(level < 0 ? -steps : steps) - 256 * size;
    }
}

int efl_tcq_decode(efl_rans_decoder *decoder, uint8_t *levels, int64_t n, const efl_rans_slots *slots) {
    uint8_t state[LANES] = {0}, contexts[LANES], symbols[LANES];
    for (int64_t done = 0; done < n; done += LANES) {
        const int size = n - done < LANES ? (int)(n - done) : LANES;
        for (int lane = 0; lane < LANES; lane++) contexts[lane] = state[lane] & 1;
        if (!efl_rans_decode(decoder, symbols, contexts, size, slots)) return 0;
        for (int lane = 0; lane < size; lane++) {
            const int symbol = symbols[lane], escape = symbol == ESCAPE;
            const int k = symbol & 1 ? (symbol + 1) / 2 : -(symbol / 2);
            const int level = 2 * k + contexts[lane];
            const int size_of = level < 0 ? -level : level;
            levels[done + lane] = (uint8_t)(escape || size_of > 127 ? ESCAPE : 2 * size_of - (level > 0));
            state[lane] = (uint8_t)efl_tcq_next(state[lane], escape ? 0 : branch_of(k));
        }
    }
    return 1;
}
