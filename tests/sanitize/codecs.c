/* codecs.c: what codecs compute, alone: for AddressSanitizer, and for machines that Python is not at hand for. Sizes
 * around those of vectors, arrays that end where their memory ends; every result is part of one CRC-32C, which must be
 * the same for all instruction sets of all machines: devices encode what another machine decodes. Compiled with
 * dispatch.c, src/codecs and the objects of kernels.c.
 */
#include "codecs/classes.h"
#include "codecs/codecs.h"
#include "codecs/ring.h"
#include "codecs/tables.h"
#include "efl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECTED 0xc9f0e1eau
#define SEED 0x0123456789abcdefull
static uint32_t digest;

static void *get(int64_t count, size_t size) {
    void *memory = calloc((size_t)count, size);
    if (memory == NULL) exit(1);
    return memory;
}

static void put(const void *data, int64_t size) {
    digest = efl_crc32c(digest, data, size);
}

/* Heavy tails, a quarter zeros, all of integers: the same floats everywhere. */
static float *numbers(int64_t n) {
    float *x = get(n, sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        const uint32_t mixed = (uint32_t)i * 2654435761u ^ (uint32_t)n;
        const float value = (float)((int32_t)(mixed >> 12 & 0xfff) - 2048) / 1024;
        x[i] = mixed >> 30 == 0 ? 0 : mixed >> 26 == 63 ? value * 400 : value;
    }
    return x;
}

static void try_symbols(const float *x, int64_t n) {
    uint8_t *symbols = get(n, 1), *contexts = get(n, 1);
    int64_t table[256], *acc = get(n, sizeof *acc);
    float values[256], *y = get(n, sizeof *y);
    for (int i = 0; i < 256; i++) table[i] = (int64_t)i * i - 9000, values[i] = (float)i / 3;
    efl_symbol_counts counts;
    memset(&counts, 0, sizeof counts);
    efl_quantize(symbols, &counts, x, 3.7f, 0.45f, n);
    put(symbols, n), put(&counts, sizeof counts);
    efl_add_symbols(acc, symbols, table, n);
    efl_take_symbols(y, symbols, values, n);
    put(acc, n * 8), put(y, n * 4);
    efl_coin_quantize(symbols, x, 0.31f, SEED, n);
    efl_coin_contexts(contexts, 13, SEED, 0, n);
    put(symbols, n), put(contexts, n);
    free(symbols), free(contexts), free(acc), free(y);
}

static void try_energies(const float *x, int64_t rows, int64_t columns) {
    const int64_t n = rows * columns;
    uint8_t *symbols = get(n, 1), *contexts = get(n, 1), groups[32];
    uint64_t *by_row = get(rows, 8), *by_column = get(columns, 8);
    int8_t *row = get(rows, 1), *column = get(columns, 1);
    efl_symbol_counts counts;
    memset(&counts, 0, sizeof counts);
    efl_quantize(symbols, &counts, x, 3.7f, 0.5f, n);
    efl_energy_sums(by_row, by_column, symbols, rows, columns);
    put(by_row, rows * 8), put(by_column, columns * 8);
    for (int64_t i = 0; i < rows; i++) row[i] = (int8_t)(by_row[i] % 40);
    for (int64_t i = 0; i < columns; i++) column[i] = (int8_t)(by_column[i] % 40 - 20);
    for (int i = 0; i < 32; i++) groups[i] = (uint8_t)(i / 5);
    efl_energy_contexts(contexts, row, column, NULL, columns, 0, n);
    put(contexts, n);
    memset(contexts, 0, (size_t)n);
    efl_energy_contexts(contexts, row, column, groups, columns, n / 3, n - n / 3);
    put(contexts, n);
    free(symbols), free(contexts), free(by_row), free(by_column), free(row), free(column);
}

/* Symbols through a stream and back. */
static void try_stream(const uint8_t *symbols, const uint8_t *contexts, int64_t n, int tables, int lanes) {
    uint64_t *counts = get(tables * 256, 8);
    efl_rans_table *coder = get(tables, sizeof *coder);
    efl_rans_slots *slots = get(tables, sizeof *slots);
    const int64_t room = efl_rans_bound(n, lanes);
    uint8_t *stream = get(room, 1), *back = get(n, 1), *start;
    efl_rans_decoder decoder;
    efl_count_symbols(counts, symbols, contexts, n);
    for (int i = 0; i < tables; i++) {
        efl_rans_normalise(&coder[i], &counts[i * 256]);
        if (!efl_rans_prepare_encoder(&coder[i]) || !efl_rans_prepare_decoder(&coder[i], &slots[i])) exit(1);
    }
    start = efl_rans_encode(stream + room, symbols, contexts, n, coder, tables, lanes);
    put(start, stream + room - start);
    if (!efl_rans_begin(&decoder, start, stream + room, lanes) ||
        !efl_rans_decode(&decoder, back, contexts, n, slots, tables) || !efl_rans_ended(&decoder) ||
        memcmp(back, symbols, (size_t)n) != 0) {
        fprintf(stderr, "%d symbols on %d lanes do not come back\n", (int)n, lanes);
        exit(1);
    }
    free(counts), free(coder), free(slots), free(stream), free(back);
}

/* Most symbols 0, contexts that are certain, likely and unlikely: what streams of updates are. */
static void try_sparse(const uint8_t *symbols, int64_t n) {
    uint8_t *few = get(n, 1), *contexts = get(n, 1);
    for (int64_t i = 0; i < n; i++) {
        contexts[i] = (uint8_t)(i / 40 % 3);
        few[i] = contexts[i] && i * 7 % (contexts[i] == 1 ? 61 : 5) == 0 ? symbols[i] : 0;
    }
    for (int lanes = 1; lanes <= 32; lanes *= lanes == 1 ? 8 : 2) try_stream(few, contexts, n, 3, lanes);
    if (efl_largest(few, n) > efl_largest(symbols, n)) exit(1);
    free(few), free(contexts);
}

/* Live rows and columns of a matrix: contexts, and symbols that go where they lie. */
static void try_live(const uint8_t *symbols, int64_t rows, int64_t columns) {
    const int64_t n = rows * columns;
    uint8_t *row = get(rows, 1), *column = get(columns, 1), groups[32];
    efl_live live = {0, 0, 0, 3, get(rows, 4), get(columns, 4), get(rows, 1), get(columns, 1)};
    for (int64_t i = 0; i < rows; i++) row[i] = (uint8_t)(i * 5 % 16);
    for (int64_t i = 0; i < columns; i++) column[i] = (uint8_t)(i * 7 % 16);
    for (int i = 0; i < 32; i++) groups[i] = (uint8_t)(i / 3);
    efl_live_fill(&live, row, rows, column, columns);
    const int64_t count = live.R * live.C, from = count / 3;
    if (count > 0) {
        int64_t table[256] = {0}, *acc = get(n + 3, sizeof *acc);
        float values[256] = {0}, *y = get(n + 3, sizeof *y);
        uint8_t *own = get(count, 1), *contexts = get(count, 1);
        for (int i = 1; i < 256; i++) table[i] = 1000 - i * i, values[i] = (float)i / 7;
        efl_live_gather(own, symbols, &live);
        efl_live_contexts(contexts, groups, &live, 0, count);
        efl_live_add(acc, own + from, table, &live, from, count - from);
        efl_live_take(y, own + from, values, &live, from, count - from);
        put(own, count), put(contexts, count), put(acc, (n + 3) * 8), put(y, (n + 3) * 4);
        efl_live_contexts(contexts, groups, &live, from, count - from);
        put(contexts, count - from);
        free(acc), free(y), free(own), free(contexts);
    }
    free(row), free(column), free(live.rows), free(live.columns), free(live.row_classes), free(live.column_classes);
}

/* The instruction against the table: every alignment, every rest. */
static void try_checksums(void) {
    uint8_t data[80];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * i + 3);
    for (int64_t from = 0; from < 8; from++)
        for (int64_t size = 0; size <= 70; size++) {
            const uint32_t crc = efl_crc32c(0x1234567u, data + from, size);
            if (crc == efl_crc32c_by_table(0x1234567u, data + from, size)) continue;
            fprintf(stderr, "CRC32C of %d bytes from %d on is wrong\n", (int)size, (int)from);
            exit(1);
        }
}

/* A table out of these counts, and back. */
static void try_tables(const uint64_t counts[256]) {
    uint8_t data[EFL_TABLE_SIZE], *exact;
    uint16_t freq[256], back[256];
    double bits;
    const int64_t size = efl_table_best(data, freq, &bits, counts);
    exact = get(size, 1); /* ends where its memory ends */
    memcpy(exact, data, (size_t)size);
    if (efl_table_read(back, exact, size) != size || memcmp(back, freq, sizeof freq) != 0) exit(1);
    for (int64_t cut = 0; cut < size; cut++)
        if (efl_table_read(back, exact, cut) != EFL_TABLE_CUT_OFF) exit(1);
    free(exact);
}

/* Numbers of m bits there and back, and what a vector becomes in a masked round; far from all integers too. */
static void try_ring(const float *x, int64_t n) {
    int32_t *q = get(n, sizeof *q);
    uint32_t *acc = get(n, sizeof *acc);
    double squares, spread;
    for (int m = 2; m <= 32; m++) {
        const int64_t size = efl_ring_bytes(n, m);
        uint8_t *data = get(size, 1); /* ends where its memory ends */
        const uint64_t sum = efl_ring_round(q, x, 300.0, INT32_MAX, SEED + (uint64_t)m, n);
        efl_ring_pack(data, (const uint32_t *)q, m, n);
        memset(acc, 0, (size_t)n * sizeof *acc);
        if (!efl_ring_add(acc, data, m, n)) exit(1);
        for (int64_t i = 0; i < n; i++)
            if (acc[i] != ((uint32_t)q[i] & (m < 32 ? ((uint32_t)1 << m) - 1 : UINT32_MAX))) exit(1);
        if (n * m % 8 != 0) {
            data[size - 1] |= 0x80;
            if (efl_ring_add(acc, data, m, n)) exit(1);
        }
        put(data, size), put(&sum, sizeof sum);
        free(data);
    }
    efl_ring_measure(&squares, &spread, x, 0.37, n);
    put(&squares, sizeof squares), put(&spread, sizeof spread);
    efl_ring_round_down(q, x, 1e30, 7, n), put(q, n * 4);
    efl_ring_round(q, x, 0.05, 3, SEED, n), put(q, n * 4);
    float *y = get(n, sizeof *y);
    memcpy(y, x, (size_t)n * sizeof *y);
    efl_hadamard(y, n & -n, n), put(y, n * 4); /* the largest power of two that divides n */
    free(q), free(acc), free(y);
}

/* Classes of n rows and columns in turn, out of a payload and cut short everywhere. */
static void try_classes(int64_t n) {
    efl_rans_table tables[2];
    uint64_t counts[2][256] = {{0}};
    uint8_t *classes = get(n, 1), *kinds = get(n, 1), *back = get(n, 1), *stream = get(efl_rans_bound(n, 1), 1);
    uint8_t head[1 + 2 * EFL_TABLE_SIZE + 4] = {2};
    int64_t size = 1;
    for (int64_t i = 0; i < n; i++) {
        kinds[i] = (uint8_t)(i % 2), classes[i] = (uint8_t)(i * i % 7 * (1 + i % 2));
        counts[kinds[i]][classes[i]]++;
    }
    for (int i = 0; i < 2; i++) {
        efl_rans_normalise(&tables[i], counts[i]);
        if (!efl_rans_prepare_encoder(&tables[i])) exit(1);
        size += efl_table_write(head + size, tables[i].freq);
    }
    uint8_t *end = stream + efl_rans_bound(n, 1), *first = efl_rans_encode(end, classes, kinds, n, tables, 2, 1);
    for (int byte = 0; byte < 4; byte++) head[size++] = (uint8_t)((end - first) >> (8 * byte));
    uint8_t *exact = get(size + (end - first), 1); /* ends where its memory ends */
    memcpy(exact, head, (size_t)size), memcpy(exact + size, first, (size_t)(end - first));
    size += end - first;
    if (efl_classes_read(back, kinds, n, exact, size) != size || memcmp(back, classes, (size_t)n) != 0) exit(1);
    for (int64_t cut = size - 1; cut >= 0; cut -= 1 + cut / 512)
        if (efl_classes_read(back, kinds, n, exact, cut) >= 0) exit(1);
    if (n > 16 && efl_classes_read(back, kinds, n - 1, exact, size) >= 0) exit(1);
    put(exact, size);
    free(classes), free(kinds), free(back), free(stream), free(exact);
}

/* What is added of a payload: x in fixed point, and levels that occur. */
static void try_fixed(const float *x, const uint8_t *symbols, int64_t n) {
    int64_t *fixed = get(n, sizeof *fixed);
    float levels[256];
    uint16_t frequencies[2][256] = {{0}};
    const float peak = efl_fixed(fixed, x, -3, n);
    for (int64_t i = 0; i < n; i++) frequencies[i % 2][symbols[i]]++;
    for (int i = 0; i < 256; i++) levels[i] = (float)i;
    efl_only_occurring(levels, frequencies[0], 2);
    put(fixed, n * (int64_t)sizeof *fixed), put(&peak, sizeof peak), put(levels, sizeof levels);
    free(fixed);
}

static void try_size(int64_t n) {
    float *x = numbers(n);
    uint8_t *symbols = get(n, 1);
    efl_symbol_counts counts;
    memset(&counts, 0, sizeof counts);
    try_symbols(x, n);
    try_energies(x, 1, n);
    if (n % 7 == 0) try_energies(x, 7, n / 7);
    efl_quantize(symbols, &counts, x, 3.7f, 0.45f, n);
    for (int lanes = 1; lanes <= 32; lanes *= lanes == 1 ? 8 : 2) try_stream(symbols, NULL, n, 1, lanes);
    try_sparse(symbols, n);
    try_live(symbols, 1, n);
    if (n % 7 == 0) try_live(symbols, 7, n / 7), try_live(symbols, n / 7, 7);
    try_tables(counts.symbol);
    try_ring(x, n);
    try_classes(n);
    try_fixed(x, symbols, n);
    free(x), free(symbols);
}

/* With an argument, the processor must have an instruction for CRC32C. */
int main(int argc, char **argv) {
    (void)argv;
    static const int64_t sizes[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 700, 4095, 70000};
    efl_error error;
    efl_crc32c_init();
    if (efl_isa_select(getenv("EDGEFL_ISA"), &error) != EFL_OK) return puts(error.message), 1;
    if (argc > 1 && !efl_crc32c_by_instruction()) return puts("CRC32C is not computed by instruction"), 1;
    try_checksums();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) try_size(sizes[i]);
    if (digest != EXPECTED)
        return fprintf(stderr, "%s: codecs make %08x, other machines %08x\n", efl_isa(), digest, EXPECTED), 1;
    printf("%s: codecs of %d sizes, the same bits as everywhere; CRC32C by %s\n", efl_isa(),
           (int)(sizeof sizes / sizeof *sizes), efl_crc32c_by_instruction() ? "instruction" : "table");
    return 0;
}
