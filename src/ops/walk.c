/* walk.c: see walk.h. */
#include "walk.h"

#include "pieces.h"

efl_walk efl_walk_over(int64_t batch, const efl_shape *shape) {
    efl_walk walk = {.ndim = shape->ndim + 1, .dim = {batch}};
    for (int i = 0; i < shape->ndim; i++) walk.dim[i + 1] = shape->dim[i];
    return walk;
}

void efl_walk_array(efl_walk *walk, const efl_shape *shape, int per_sample) {
    int64_t *step = walk->step[walk->arrays++], size = 1;
    for (int i = shape->ndim - 1; i >= 0; i--) {
        step[walk->ndim - shape->ndim + i] = shape->dim[i] == 1 ? 0 : size;
        size *= shape->dim[i];
    }
    step[0] = per_sample ? size : 0;
}

static void keep_axis(efl_walk *walk, int to, int from) {
    walk->dim[to] = walk->dim[from];
    for (int k = 0; k < walk->arrays; k++) walk->step[k][to] = walk->step[k][from];
}

static int mergeable(const efl_walk *walk, int outer, int inner) {
    for (int k = 0; k < walk->arrays; k++)
        if (walk->step[k][outer] != walk->step[k][inner] * walk->dim[inner]) return 0;
    return 1;
}

void efl_walk_pack(efl_walk *walk) {
    int kept = 0;
    for (int i = 0; i < walk->ndim; i++) {
        if (walk->dim[i] == 1) continue;
        if (kept > 0 && mergeable(walk, kept - 1, i)) {
            const int64_t outer = walk->dim[--kept];
            walk->dim[i] *= outer;
        }
        keep_axis(walk, kept++, i);
    }
    while (kept < 2) { /* leading axes of one, and of no step */
        for (int i = kept++; i > 0; i--) keep_axis(walk, i, i - 1);
        walk->dim[0] = 1;
        for (int k = 0; k < walk->arrays; k++) walk->step[k][0] = kept == 1;
    }
    walk->ndim = kept;
    walk->m = walk->dim[kept - 2];
    walk->n = walk->dim[kept - 1];
}

int efl_walk_next(efl_walk *walk) {
    for (int i = walk->ndim - 3; i >= 0; i--) {
        for (int k = 0; k < walk->arrays; k++) walk->at[k] += walk->step[k][i];
        if (++walk->index[i] < walk->dim[i]) return 1;
        for (int k = 0; k < walk->arrays; k++) walk->at[k] -= walk->step[k][i] * walk->dim[i];
        walk->index[i] = 0;
    }
    return 0;
}

/* The axis along which either array lies together becomes one of the two inner ones, which are copied in tiles. */
static void bring_together(efl_walk *walk) {
    const int row = walk->ndim - 2;
    const efl_walk before = *walk;
    for (int i = 0; i < row; i++) {
        if (before.step[0][i] != 1 && before.step[1][i] != 1) continue;
        keep_axis(walk, i, row);
        walk->m = walk->dim[row] = before.dim[i];
        for (int k = 0; k < walk->arrays; k++) walk->step[k][row] = before.step[k][i];
        return;
    }
}

void efl_walk_copy(efl_walk *walk, float *y, const float *x) {
    const int row = walk->ndim - 2, col = walk->ndim - 1;
    bring_together(walk);
    do {
        efl_kernels->copy_strided(y + walk->at[0], walk->step[0][row], walk->step[0][col], x + walk->at[1],
                                  walk->step[1][row], walk->step[1][col], walk->m, walk->n);
    } while (efl_walk_next(walk));
}

void efl_walk_sum(efl_walk *walk, float *y, const float *x) {
    const int64_t m = walk->m, n = walk->n, row = walk->step[0][walk->ndim - 2], col = walk->step[0][walk->ndim - 1];
    do {
        float *to = y + walk->at[0];
        const float *from = x + walk->at[1];
        if (col != 0 && row == 0) {
            efl_kernels->add_rows(to, from, m, n);
            continue;
        }
        for (int64_t i = 0; i < m; i++) {
            if (col == 0)
                to[i * row] += efl_kernels->sum(from + i * n, n);
            else
                efl_kernels->add(to + i * row, from + i * n, n);
        }
    } while (efl_walk_next(walk));
}

void efl_walk_keep(const efl_op_run *run, float *to, const float *from, const efl_keeping *keeping, float fill) {
    efl_walk walk = efl_walk_over(run->batch, &run->shapes->y);
    efl_walk_array(&walk, &run->shapes->y, 1);
    efl_walk_array(&walk, keeping->shape, keeping->per_sample);
    efl_walk_pack(&walk);
    const int64_t row = walk.step[0][walk.ndim - 2], by_row = walk.step[1][walk.ndim - 2];
    const int64_t by_col = walk.step[1][walk.ndim - 1];
    do {
        for (int64_t i = 0; i < walk.m; i++) {
            const int64_t at = walk.at[0] + i * row;
            keeping->row(to + at, from + at, keeping->by + walk.at[1] + i * by_row, by_col, fill, walk.n);
        }
    } while (!efl_stopped(run) && efl_walk_next(&walk));
}
