/* classes.c: see classes.h. An aggregator reads them with each update, so they are read in one call. */
#include "classes.h"

#include "codecs.h"
#include "tables.h"

static uint32_t load_u32(const uint8_t *from) {
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/* The tables, and the bytes of their number and of them. */
static int64_t read_slots(efl_rans_slots slots[2], const uint8_t *data, int64_t size) {
    efl_rans_table table;
    int64_t at = 1;
    if (size < 1) return EFL_CLASSES_CUT_OFF;
    if (data[0] != 2) return EFL_CLASSES_NOT_TWO;
    for (int i = 0; i < 2; i++) {
        const int64_t used = efl_table_read(table.freq, data + at, size - at);
        if (used < 0) return used;
        if (!efl_rans_prepare_decoder(&table, &slots[i])) return EFL_TABLE_SUM;
        at += used;
    }
    return at;
}

int64_t efl_classes_read(uint8_t *classes, const uint8_t *kinds, int64_t n, const uint8_t *data, int64_t size) {
    efl_rans_slots slots[2];
    efl_rans_decoder decoder;
    const int64_t at = read_slots(slots, data, size);
    if (at < 0) return at;
    if (size - at < 4 || load_u32(data + at) > size - at - 4) return EFL_CLASSES_CUT_OFF;
    const uint8_t *stream = data + at + 4, *end = stream + load_u32(data + at);
    if (!efl_rans_begin(&decoder, stream, end, 1) || !efl_rans_decode(&decoder, classes, kinds, n, slots, 2) ||
        !efl_rans_ended(&decoder))
        return EFL_CLASSES_STREAM;
    return efl_largest(classes, n) < EFL_CLASSES ? end - data : EFL_CLASSES_MOST;
}

void efl_groups_read(uint8_t groups[32], uint32_t mask) {
    groups[0] = 0;
    for (int i = 1; i < 32; i++) groups[i] = (uint8_t)(groups[i - 1] + (mask >> i & 1));
}
