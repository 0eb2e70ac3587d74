/* pieces.h: long work in pieces, so that a run that is cancelled ends soon, wherever it is.
 *
 * Ops use these instead of the kernels whose work grows faster than the memory that they touch. What is short, which is
 * all that an ordinary plan has, is one call. Anything longer is many, by rows of the result, and none of them begins
 * once the run is to stop. What the op has written is then unfinished, and efl_fit and the others discard it.
 */
#ifndef EFL_PIECES_H
#define EFL_PIECES_H

#include "ops.h"

/* A piece is at most so many multiplications, or one row: about 0.1 s for a small ARM core, 5 ms for a large x86. */
#ifndef EFL_PIECE /* `make sanitize` has short ones */
#define EFL_PIECE ((int64_t)1 << 28)
/* Elements of a piece of work that is one function for each element. */
#define EFL_PIECE_ELEMENTS ((int64_t)1 << 22)
#endif

static inline int efl_stopped(const efl_op_run *run) {
    return atomic_load_explicit(run->stop, memory_order_relaxed);
}

/* How many of `total` elements to process next when `done` are; 0: no more. A multiple of `row` where there is one. */
static inline int64_t efl_piece(const efl_op_run *run, int64_t done, int64_t total, int64_t row) {
    const int64_t most = row > EFL_PIECE_ELEMENTS ? row : EFL_PIECE_ELEMENTS / row * row;
    if (efl_stopped(run)) return 0;
    return total - done < most ? total - done : most;
}

/* The kernels of the same names. */
void efl_gemm(const efl_op_run *run, float *c, const float *a, int64_t a_row, int64_t a_col, const float *b,
              const float *bias, int64_t m, int64_t n, int64_t k, int accumulate);
void efl_gemm_nt(const efl_op_run *run, float *c, const float *a, const float *b, int64_t m, int64_t n, int64_t k);
void efl_gemm_update(const efl_op_run *run, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t m,
                     int64_t n, int64_t k); /* of run->update */
/* c(M,N) = a(M,K) b + bias(N) or NULL, for a b that serves many products: efl_panels makes it of b(K,N), and
 * efl_panels_turned of b(N,K): N K floats. Read in the order of its memory, it comes from afar in time. */
void efl_panels(float *panels, const float *b, int64_t k, int64_t n);
void efl_panels_turned(float *panels, const float *b, int64_t k, int64_t n);
void efl_gemm_panels(const efl_op_run *run, float *c, const float *a, const float *panels, const float *bias, int64_t m,
                     int64_t n, int64_t k);
/* `kernel` is efl_kernels->product or product_of_channels. */
void efl_product_pieces(const efl_op_run *run, void (*kernel)(const efl_product *), const efl_product *product);

#endif
