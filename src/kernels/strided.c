/* strided.c: two numbers at a time under broadcasting, and copies between layouts; the two innermost axes of either.
 * The axes further out are walked by ops/walk.c. */

/* A row of one operand: its vector at j, or its one number. */
INLINE vf operand(const float *row, int64_t step, int64_t j, int64_t n) {
    return step == 0 ? splat(*row) : load_upto(row + j, n - j);
}

#define ARITHMETIC_ROWS(left, right, expression)                              \
    for (int64_t i = 0; i < m; i++) {                                         \
        const float *a = a_at + i * a_row, *b = b_at + i * b_row;             \
        FOR_VECTORS(j, n) {                                                   \
            const vf l = operand(a, left, j, n), r = operand(b, right, j, n); \
            store_upto(y + i * n + j, expression, n - j);                     \
        }                                                                     \
    }
#define ARITHMETIC(name, expression)                                                                                   \
    static void name##_op(float *y, const float *a_at, int64_t a_row, int64_t a_col, const float *b_at, int64_t b_row, \
                          int64_t b_col, int64_t m, int64_t n) {                                                       \
        if (a_col != 0 && b_col != 0)                                                                                  \
            ARITHMETIC_ROWS(1, 1, expression)                                                                          \
        else if (a_col != 0)                                                                                           \
            ARITHMETIC_ROWS(1, 0, expression)                                                                          \
        else if (b_col != 0)                                                                                           \
            ARITHMETIC_ROWS(0, 1, expression)                                                                          \
        else                                                                                                           \
            ARITHMETIC_ROWS(0, 0, expression)                                                                          \
    }
ARITHMETIC(add, l + r)
ARITHMETIC(sub, l - r)
ARITHMETIC(mul, (l * r))
ARITHMETIC(div, l / r)
/* NaN passes, on either side. */
ARITHMETIC(max, choose((l < r) | (r != r), r, l))
ARITHMETIC(min, choose((l > r) | (r != r), r, l))
ARITHMETIC(step, choose(l > r, splat(1.0f), choose(l == r, splat(0.5f), splat(0.0f))))

static void arithmetic(efl_arithmetic op, float *y, const float *a, int64_t a_row, int64_t a_col, const float *b,
                       int64_t b_row, int64_t b_col, int64_t m, int64_t n) {
    switch (op) {
    case EFL_ADD: add_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    case EFL_SUB: sub_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    case EFL_MUL: mul_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    case EFL_DIV: div_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    case EFL_MAX: max_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    case EFL_MIN: min_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    case EFL_STEP: step_op(y, a, a_row, a_col, b, b_row, b_col, m, n); break;
    }
}

/* Tiles, because one side or the other strides: each line of it is used up while it is in the nearest cache. */
enum { COPY_TILE = 16 };

static void copy_strided(float *y, int64_t y_row, int64_t y_col, const float *x, int64_t x_row, int64_t x_col,
                         int64_t m, int64_t n) {
    if (y_col == 1 && x_col == 1) {
        for (int64_t i = 0; i < m; i++)
            FOR_VECTORS(j, n) store_upto(y + i * y_row + j, load_upto(x + i * x_row + j, n - j), n - j);
        return;
    }
    for (int64_t top = 0; top < m; top += COPY_TILE) {
        for (int64_t left = 0; left < n; left += COPY_TILE) {
            const int64_t bottom = top + COPY_TILE < m ? top + COPY_TILE : m;
            const int64_t right = left + COPY_TILE < n ? left + COPY_TILE : n;
            for (int64_t i = top; i < bottom; i++)
                for (int64_t j = left; j < right; j++) y[i * y_row + j * y_col] = x[i * x_row + j * x_col];
        }
    }
}
