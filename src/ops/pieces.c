/* pieces.c: see pieces.h. */
#include "pieces.h"

#include "parts.h"

#include <string.h>

enum { LANES = 16 }; /* a row of fewer takes as long */

/* Whether m rows of so many multiplications are one piece. In doubles: a product of three sizes may be any number. */
static int is_short(int64_t m, int64_t n, int64_t k) {
    return (double)m * (double)n * (double)k <= (double)EFL_PIECE;
}

/* How many of `left` rows to process next; 0: no more. */
static int64_t rows_of(const efl_op_run *run, int64_t left, int64_t n, int64_t k) {
    const double rows = (double)EFL_PIECE / ((double)n * (double)k);
    if (efl_stopped(run)) return 0;
    return (double)left < rows ? left : rows > 1 ? (int64_t)rows : left > 0;
}

/* A product of one of three kinds, so much of it as a part makes: rows of the result, or columns. */
typedef struct {
    float *c;
    const float *a, *b, *bias;
    int64_t a_row, a_col, m, n, k;
    int accumulate, turned; /* turned: b is (N, K) */
    int by_columns;
} product;

/* Rows `from` to `to` of columns `first` to `last`, in pieces. */
static void multiply(const efl_op_run *run, const product *p, int64_t from, int64_t to, int64_t first, int64_t last) {
    const int64_t n = last - first;
    float *c = p->c + first;
    const float *b = p->b + first * (p->turned ? p->k : 1), *bias = p->bias == NULL ? NULL : p->bias + first;
    for (int64_t i = from, rows; (rows = rows_of(run, to - i, n, p->k)) > 0; i += rows) {
        if (p->turned)
            efl_kernels->gemm_nt(c + i * p->n, p->n, p->a + i * p->a_row, b, rows, n, p->k);
        else
            efl_kernels->gemm(c + i * p->n, p->n, p->a + i * p->a_row, p->a_row, p->a_col, b, p->n, bias, rows, n, p->k,
                              p->accumulate);
    }
}

/* Whole tiles of every instruction set; a part of so many rows packs its panels, if the kernel does, without loss. */
enum { TILE_ROWS = 12, TILE_COLS = 64, MANY_ROWS = 96, FEW_ROWS = 24 };

static void multiply_part(const efl_op_run *run, efl_share s, const void *context) {
    const product *p = context;
    if (p->by_columns)
        multiply(run, p, 0, p->m, efl_part_start(p->n, s.count, s.part, TILE_COLS),
                 efl_part_start(p->n, s.count, s.part + 1, TILE_COLS));
    else
        multiply(run, p, efl_part_start(p->m, s.count, s.part, TILE_ROWS),
                 efl_part_start(p->m, s.count, s.part + 1, TILE_ROWS), 0, p->n);
}

/* Of few rows, a part takes its share of the weights from the core that had it at the step before. So it has to be
 * worth FROM_AFAR times as much as others. */
enum { FROM_AFAR = 4 };

/* Either the multiplications take the time, or the reading of b. */
static int64_t product_parts(const efl_op_run *run, const product *p) {
    const double size = (double)p->n * (double)p->k, flops = 2 * (double)p->m * size, reads = EFL_ELEMENT * size;
    const double worth = flops > reads ? flops : reads;
    if (p->m >= 2 * MANY_ROWS) return efl_parts(run, worth, p->m / MANY_ROWS);
    return efl_parts(run, worth / FROM_AFAR, p->by_columns ? p->n / TILE_COLS : p->m / FEW_ROWS);
}

static void multiply_in_parts(const efl_op_run *run, product *p) {
    p->by_columns = p->m < 2 * MANY_ROWS && p->n >= 2 * TILE_COLS;
    const int64_t parts = product_parts(run, p);
    if (parts == 1)
        multiply(run, p, 0, p->m, 0, p->n);
    else
        efl_parallel(run, parts, multiply_part, p);
}

void efl_gemm(const efl_op_run *run, float *c, const float *a, int64_t a_row, int64_t a_col, const float *b,
              const float *bias, int64_t m, int64_t n, int64_t k, int accumulate) {
    multiply_in_parts(run, &(product){c, a, b, bias, a_row, a_col, m, n, k, accumulate, 0, 0});
}

void efl_gemm_nt(const efl_op_run *run, float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    multiply_in_parts(run, &(product){c, a, b, NULL, k, 1, m, n, k, 0, 1, 0});
}

static int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}

void efl_panels(float *panels, const float *b, int64_t k, int64_t n) {
    const int64_t wide = efl_kernels->panel;
    for (int64_t j = 0; j < n; j += wide)
        for (int64_t p = 0; p < k; p++, panels += smaller(wide, n - j))
            memcpy(panels, b + p * n + j, (size_t)smaller(wide, n - j) * sizeof *b);
}

void efl_panels_turned(float *panels, const float *b, int64_t k, int64_t n) {
    const int64_t wide = efl_kernels->panel, whole = n / wide;
    efl_kernels->transpose(panels, b, whole, wide, k);
    if (n % wide > 0) efl_kernels->transpose(panels + whole * wide * k, b + whole * wide * k, 1, n % wide, k);
}

/* Columns `first` to `last`. */
static void multiply_panels(const efl_op_run *run, const product *p, int64_t first, int64_t last) {
    for (int64_t j = first, n; j < last && !efl_stopped(run); j += n) {
        n = smaller(efl_kernels->panel, p->n - j);
        const float *bias = p->bias == NULL ? NULL : p->bias + j;
        for (int64_t i = 0, rows; (rows = rows_of(run, p->m - i, n, p->k)) > 0; i += rows)
            efl_kernels->gemm(p->c + i * p->n + j, p->n, p->a + i * p->a_row, p->a_row, 1, p->b + j * p->k, n, bias,
                              rows, n, p->k, 0);
    }
}

static void panels_part(const efl_op_run *run, efl_share s, const void *context) {
    const product *p = context;
    multiply_panels(run, p, efl_part_start(p->n, s.count, s.part, TILE_COLS),
                    efl_part_start(p->n, s.count, s.part + 1, TILE_COLS));
}

void efl_gemm_panels(const efl_op_run *run, float *c, const float *a, const float *panels, const float *bias, int64_t m,
                     int64_t n, int64_t k) {
    const product p = {c, a, panels, bias, k, 1, m, n, k, 0, 0, 0};
    efl_parallel(run, efl_parts(run, 2 * (double)m * (double)n * (double)k, n / TILE_COLS), panels_part, &p);
}

/* Rows `from` to `to` of the update of run->update, with p's operands. */
static void update_rows(const efl_op_run *run, const product *p, int64_t from, int64_t to) {
    const efl_update *u = run->update;
    for (int64_t i = from, rows; (rows = rows_of(run, to - i, p->n, p->k)) > 0; i += rows) {
        const int64_t at = i * p->n;
        efl_kernels->gemm_update(u->w + at, u->v == NULL ? NULL : u->v + at, u->s == NULL ? NULL : u->s + at,
                                 u->w0 + at, u->c == NULL ? NULL : u->c + at, p->a + i * p->a_row, p->a_row, p->a_col,
                                 p->b, u->sgd, rows, p->n, p->k);
    }
}

static void update_part(const efl_op_run *run, efl_share s, const void *context) {
    const product *p = context;
    update_rows(run, p, efl_part_start(p->m, s.count, s.part, FEW_ROWS),
                efl_part_start(p->m, s.count, s.part + 1, FEW_ROWS));
}

/* The weights are read and written, which for few samples takes longer than the product. */
void efl_gemm_update(const efl_op_run *run, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t m,
                     int64_t n, int64_t k) {
    const product p = {NULL, a, b, NULL, a_row, a_col, m, n, k, 0, 0, 0};
    const double flops = 2 * (double)m * (double)n * (double)k, writes = EFL_ELEMENT * (double)m * (double)n;
    const double worth = (flops > writes ? flops : writes) / FROM_AFAR;
    efl_parallel(run, efl_parts(run, worth, m / FEW_ROWS), update_part, &p);
}

/* Along the first level of rows that has more than one, and then along the next one. */
void efl_product_pieces(const efl_op_run *run, void (*kernel)(const efl_product *), const efl_product *product) {
    efl_product piece = *product;
    const int64_t *m = product->m, *k = product->k,
                  row = k[0] * k[1] * k[2] * (product->n < LANES ? LANES : product->n);
    const int level = m[0] > 1 ? 0 : m[1] > 1 ? 1 : 2;
    const int64_t inner = level == 0 ? m[1] * m[2] : level == 1 ? m[2] : 1;
    if (is_short(m[level], inner, row)) {
        kernel(product);
        return;
    }
    for (int64_t i = 0; (piece.m[level] = rows_of(run, m[level] - i, inner, row)) > 0; i += piece.m[level]) {
        piece.a = product->a + i * product->a_m[level];
        piece.c = product->c + i * product->c_m[level];
        if (level < 2 && piece.m[level] == 1)
            efl_product_pieces(run, kernel, &piece);
        else
            kernel(&piece);
    }
}
