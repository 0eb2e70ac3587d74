/* live.h: the rows and columns of a matrix that have any symbol but 0. A stream of an update may leave out all others;
 * in a real update two thirds of the coordinates lie there. edgefl/codecs/energy.py says what a class is.
 *
 * A live symbol is one in a live row and a live column; they are numbered row by row.
 */
#ifndef EFL_LIVE_H
#define EFL_LIVE_H

#include <stdint.h>

#define EFL_CLASSES 16     /* of rows and columns; 0 is a dead one */
#define EFL_CENTRE_CLASS 8 /* of a row or column of mean magnitude */

/* R live rows and C live columns in ascending order, and their classes; rows are `stride` coordinates apart, and the
 * matrix begins at coordinate `start`. */
typedef struct {
    int64_t R, C, stride, start;
    int32_t *rows, *columns;
    uint8_t *row_classes, *column_classes;
} efl_live;

/* Fills live's arrays, which have room for all, from the classes of rows and columns, all below EFL_CLASSES. */
void efl_live_fill(efl_live *live, const uint8_t *row_classes, int64_t rows, const uint8_t *column_classes,
                   int64_t columns);
/* live symbols(R,C) out of those of the whole matrix. */
void efl_live_gather(uint8_t *symbols, const uint8_t *matrix, const efl_live *live);
/* contexts(n) of live symbols start to start + n - 1: groups(32)[row class + column class - EFL_CENTRE_CLASS, 0
 * at least]. */
void efl_live_contexts(uint8_t *contexts, const uint8_t *groups, const efl_live *live, int64_t start, int64_t n);
/* For live symbols start to start + n - 1 that are not 0: acc += table[symbol], or y = table[symbol], where they lie.
 * table(256) */
void efl_live_add(int64_t *acc, const uint8_t *symbols, const int64_t *table, const efl_live *live, int64_t start,
                  int64_t n);
void efl_live_take(float *y, const uint8_t *symbols, const float *table, const efl_live *live, int64_t start,
                   int64_t n);

#endif
