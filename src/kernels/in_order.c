/* in_order.c: the steps of a register tile on aarch64, in the order in which they are to run. Included by kernels.c.
 *
 * A core that issues in order, as the Cortex-A53 of a Pi 3 or a Zero 2, waits wherever a number is used before it has
 * come; one that issues out of order is no slower for what follows. So the loads of the next step stand between the
 * multiplications of this one, each behind the last use of its register: 24 sums, a row of b, and as many numbers of a
 * as there are registers left. Every instruction is volatile: no compiler moves one past another, or loads ahead what
 * it then has to keep on the stack.
 *
 * The sums are those of the plain loop in gemm.c, to the bit.
 */
#if defined(NEON_64)

/* Rows whose number of a is there before the step begins, of 32 registers. */
#define ORDERED_AHEAD(rows, cols) ((rows) * (cols) + (cols) + (rows) <= 32 ? (rows) : (rows) / 2)
/* Whether the last of these comes in the step itself, which has other multiplications to do meanwhile. */
#define ORDERED_LATE(rows, cols) ((rows) > 1 && (cols) > 2)

INLINE vf ordered_vector(const float *p) {
    vf v;
    __asm__ volatile("ldr %q0, %1" : "=w"(v) : "m"(*(const vf_unaligned *)p));
    return v;
}

/* What is `at` bytes behind p, in lane 0. */
INLINE vf ordered_number(const float *p, int64_t at) {
    vf v;
    __asm__ volatile("ldr %s0, [%1, %2]" : "=w"(v) : "r"(p), "r"(at));
    return v;
}

INLINE vf ordered_vector_at(const float *p, int64_t at) {
    vf v;
    __asm__ volatile("ldr %q0, [%1, %2]" : "=w"(v) : "r"(p), "r"(at));
    return v;
}

/* sum + right times lane 0 of left */
INLINE vf ordered_sum(vf sum, vf right, vf left) {
    __asm__ volatile("fmla %0.4s, %1.4s, %2.s[0]" : "+w"(sum) : "w"(right), "w"(left));
    return sum;
}

/* sum + right times left, lane by lane */
INLINE vf ordered_lanes(vf sum, vf right, vf left) {
    __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(right), "w"(left));
    return sum;
}

/* x += by */
#define ordered_add(x, by) __asm__ volatile("add %0, %0, %1" : "+r"(x) : "rI"((int64_t)(by)))

INLINE void ordered_prefetch(const float *p, int64_t ahead) {
    __asm__ volatile("prfm pldl1strm, [%0, %1]" : : "r"(p), "r"(ahead));
}

/* The order of memory around what reads it unseen by the compiler. */
INLINE void ordered_fence(void) {
    __asm__ volatile("" : : : "memory");
}

/* What the steps read: row i of a tile has its number of step p at left[i] + from + p left_step, and the row of b is at
 * right + p right_step. */
typedef struct {
    const float *const *left;
    const float *right;
    int64_t from, left_step, right_step, steps;
} ordered_operands;

/* Where they stand and how they go on, in bytes and in registers: `at` is that of a's numbers; more is minus the number
 * of steps behind this one. */
typedef struct {
    const float *const *left;
    const float *right;
    int64_t at, more, left_step, right_step, ahead;
} ordered_place;

enum { ORDERED_ROWS = 16 }; /* of b: so many steps before it is read a row is asked for */

INLINE vf ordered_right(const float *b, const int j, const int cols, const int partial, int64_t tail) {
    return partial && j == cols - 1 ? load_n(b + j * VL, tail) : ordered_vector(b + j * VL);
}

/* One step: x has the first numbers of a, y the row of b; both are those of the next step after it, unless this is the
 * last. What is no multiplication stands beside one. So x's last number comes in the step itself: behind the loads of y
 * it would run alone. */
INLINE void ordered_step(vf sum[][GEMM_COLS], vf *x, vf *y, const int rows, const int cols, const int partial,
                         int64_t tail, const int last, ordered_place *o) {
    const int ahead = ORDERED_AHEAD(rows, cols), late = ORDERED_LATE(rows, cols);
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        /* The row whose number is not needed any more, and the one whose number comes in its place */
        const int done = i - late, next = done + ahead;
        if (!last && !late && i == 0) {
            ordered_add(o->at, o->left_step);
            ordered_add(o->right, o->right_step);
            ordered_add(o->more, 1);
        }
#pragma GCC unroll 8
        for (int j = 0; j < cols; j++) {
            sum[i][j] = ordered_sum(sum[i][j], y[j], x[i % ahead]);
            if (j == (late ? 0 : cols - 1) && (!last || next < rows))
                x[(done + ahead) % ahead] = ordered_number(o->left[next % rows], o->at);
            if (last) continue;
            if (late && i == rows - ahead && j == 1) ordered_add(o->at, o->left_step);
            if (late && i == 0 && j == cols - 2) ordered_add(o->right, o->right_step);
            if (late && i == 0 && j == cols - 1) ordered_add(o->more, 1);
            if (i == late && j == late && cols > 2) ordered_prefetch(o->right, o->ahead);
            if (i == rows - 1) y[j] = ordered_right(o->right, j, cols, partial, tail);
        }
    }
}

/* sum(rows, cols) += all steps; of the last vector of b there are `tail` lanes, if partial. */
INLINE void ordered_steps(vf sum[][GEMM_COLS], const int rows, const int cols, const int partial, int64_t tail,
                          const ordered_operands *p) {
    const int ahead = ORDERED_AHEAD(rows, cols), late = ORDERED_LATE(rows, cols);
    ordered_place o = {p->left, p->right, 4 * p->from, 1 - p->steps, 4 * p->left_step, 4 * p->right_step, 0};
    vf x[16], y[GEMM_COLS];
    o.ahead = ORDERED_ROWS * o.right_step;
    ordered_fence();
#pragma GCC unroll 8
    for (int j = 0; j < cols; j++) y[j] = ordered_right(o.right, j, cols, partial, tail);
#pragma GCC unroll 16
    for (int i = 0; i < ahead; i++)
        if (i < ahead - late) x[i] = ordered_number(o.left[i], o.at);
    while (o.more != 0) ordered_step(sum, x, y, rows, cols, partial, tail, 0, &o);
    ordered_step(sum, x, y, rows, cols, partial, tail, 1, &o);
    ordered_fence();
}

/* Likewise of dot products: y has the vectors of the tile's rows of a, x the first ones of four rows of b. */
INLINE void ordered_dot_step(vf sum[][4], vf *x, vf *y, const int rows, const int last, const float *a, const float *b,
                             int64_t k, int64_t *at, int64_t *more) {
    const int ahead = rows <= 5 ? 4 : 2;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        if (!last && j == 4 - ahead) ordered_add(*at, VL * 4);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            sum[i][j] = ordered_lanes(sum[i][j], y[i], x[j % ahead]);
            if (!last && j == 0 && i == rows - 1) ordered_add(*more, 1);
            if (!last && j == 3) y[i] = ordered_vector_at(a + i * k, *at);
        }
        if (!last || j + ahead < 4) x[j % ahead] = ordered_vector_at(b + (j + ahead) % 4 * k, *at);
    }
}

/* sum(rows,4) += a(rows,K) b(4,K)^T, lane by lane; K are `steps` vectors, and rows are k numbers apart. */
INLINE void ordered_dots(vf sum[][4], const int rows, const float *a, const float *b, int64_t k, int64_t steps) {
    const int ahead = rows <= 5 ? 4 : 2;
    int64_t at = 0, more = 1 - steps;
    vf x[4], y[8];
    ordered_fence();
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) y[i] = ordered_vector_at(a + i * k, 0);
#pragma GCC unroll 4
    for (int j = 0; j < ahead; j++) x[j] = ordered_vector_at(b + j * k, 0);
    while (more != 0) ordered_dot_step(sum, x, y, rows, 0, a, b, k, &at, &more);
    ordered_dot_step(sum, x, y, rows, 1, a, b, k, &at, &more);
    ordered_fence();
}
#endif
