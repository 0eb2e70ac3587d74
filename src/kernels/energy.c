/* energy.c: how much of a matrix of symbols lies in each row and column, and the contexts that follow. Included by
 * kernels.c; edgefl/codecs/energy.py uses them. */

/* rows(R) and columns(C) += the magnitudes of symbols(R,C) in each. */
static void energy_sums(uint64_t *rows, uint64_t *columns, const uint8_t *symbols, int64_t R, int64_t C) {
    for (int64_t r = 0; r < R; r++, symbols += C) {
        uint64_t sum = 0;
        for (int64_t c = 0; c < C; c++) {
            const uint64_t magnitude = (uint64_t)(symbols[c] + 1) >> 1;
            sum += magnitude;
            columns[c] += magnitude;
        }
        rows[r] += sum;
    }
}

/* One row's: groups[contexts[i] + row + columns[i]], the sum kept within EFL_ENERGY_CONTEXTS. */
static void energy_row(uint8_t *contexts, int row, const int8_t *columns, const uint8_t *groups, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int sum = contexts[i] + row + columns[i], raised = sum > 0 ? sum : 0;
        contexts[i] = (uint8_t)(raised < EFL_ENERGY_CONTEXTS ? raised : EFL_ENERGY_CONTEXTS - 1);
    }
    if (groups != NULL)
        for (int64_t i = 0; i < n; i++) contexts[i] = groups[contexts[i]];
}

static void energy_contexts(uint8_t *contexts, const int8_t *rows, const int8_t *columns, const uint8_t *groups,
                            int64_t C, int64_t start, int64_t n) {
    for (int64_t i = start; i < start + n;) {
        const int64_t c = i % C, size = C - c < start + n - i ? C - c : start + n - i;
        energy_row(contexts + (i - start), rows[i / C], columns + c, groups, size);
        i += size;
    }
}
