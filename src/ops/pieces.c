/* pieces.c: see pieces.h. */
#include "pieces.h"

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

void efl_gemm(const efl_op_run *run, float *c, const float *a, int64_t a_row, int64_t a_col, const float *b,
              const float *bias, int64_t m, int64_t n, int64_t k, int accumulate) {
    if (is_short(m, n, k)) {
        efl_kernels->gemm(c, a, a_row, a_col, b, bias, m, n, k, accumulate);
        return;
    }
    for (int64_t i = 0, rows; (rows = rows_of(run, m - i, n, k)) > 0; i += rows)
        efl_kernels->gemm(c + i * n, a + i * a_row, a_row, a_col, b, bias, rows, n, k, accumulate);
}

void efl_gemm_nt(const efl_op_run *run, float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k) {
    if (is_short(m, n, k)) {
        efl_kernels->gemm_nt(c, a, b, m, n, k);
        return;
    }
    for (int64_t i = 0, rows; (rows = rows_of(run, m - i, n, k)) > 0; i += rows)
        efl_kernels->gemm_nt(c + i * n, a + i * k, b, rows, n, k);
}

void efl_gemm_update(const efl_op_run *run, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t m,
                     int64_t n, int64_t k) {
    const efl_update *u = run->update;
    if (is_short(m, n, k)) {
        efl_kernels->gemm_update(u->w, u->v, u->s, u->w0, u->c, a, a_row, a_col, b, u->sgd, m, n, k);
        return;
    }
    for (int64_t i = 0, rows; (rows = rows_of(run, m - i, n, k)) > 0; i += rows)
        efl_kernels->gemm_update(u->w + i * n, u->v == NULL ? NULL : u->v + i * n, u->s == NULL ? NULL : u->s + i * n,
                                 u->w0 + i * n, u->c == NULL ? NULL : u->c + i * n, a + i * a_row, a_row, a_col, b,
                                 u->sgd, rows, n, k);
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
