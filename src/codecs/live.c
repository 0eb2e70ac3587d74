/* live.c: see live.h. */
#include "live.h"

#include "../kernels/kernels.h"

static int64_t find_live(int32_t *numbers, uint8_t *kept, const uint8_t *classes, int64_t n) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        numbers[found] = (int32_t)i;
        kept[found] = classes[i];
        found += classes[i] != 0;
    }
    return found;
}

void efl_live_fill(efl_live *live, const uint8_t *row_classes, int64_t rows, const uint8_t *column_classes,
                   int64_t columns) {
    live->R = find_live(live->rows, live->row_classes, row_classes, rows);
    live->C = find_live(live->columns, live->column_classes, column_classes, columns);
    live->stride = columns;
}

void efl_live_gather(uint8_t *symbols, const uint8_t *matrix, const efl_live *live) {
    for (int64_t r = 0; r < live->R; r++) {
        const uint8_t *row = matrix + live->rows[r] * live->stride;
        for (int64_t c = 0; c < live->C; c++) *symbols++ = row[live->columns[c]];
    }
}

void efl_live_contexts(uint8_t *contexts, const uint8_t *groups, const efl_live *live, int64_t start, int64_t n) {
    efl_kernels->live_contexts(contexts, groups, live, start, n);
}

void efl_live_add(int64_t *acc, const uint8_t *symbols, const int64_t *table, const efl_live *live, int64_t start,
                  int64_t n) {
    efl_kernels->live_add(acc, symbols, table, live, start, n);
}

void efl_live_take(float *y, const uint8_t *symbols, const float *table, const efl_live *live, int64_t start,
                   int64_t n) {
    efl_kernels->live_take(y, symbols, table, live, start, n);
}
