/* tables.h: frequency tables as a payload has them; tables.c says how. */
#ifndef EFL_TABLES_H
#define EFL_TABLES_H

#include <stdint.h>

#define EFL_MAX_TABLES 16        /* of a payload */
#define EFL_TABLE_SIZE (2 + 512) /* the most bytes of a table */

enum { EFL_TABLE_CUT_OFF = -1, EFL_TABLE_KIND = -2, EFL_TABLE_SUM = -3, EFL_TABLE_NO_ZERO = -4 };

/* Frequencies of a quantizer's symbols 0, +1, -1, +2, -2, ...; 0 if they leave nothing for 0.
 *     f(0) about 16 zero,    f(+k) = f(-k) about proportional to (decay / 256)^k for k = 1 to last & 127
 * f(EFL_ESCAPE) is 1 if last is above 127, else 0. */
int efl_table_geometric(uint16_t freq[256], int zero, int decay, int last);
/* The frequencies in the table that data(size) begins with, and its bytes; or one of the errors above. */
int64_t efl_table_read(uint16_t freq[256], const uint8_t *data, int64_t size);
/* An explicit table, and its bytes. The first of two bytes of a frequency has its high bit set. */
int64_t efl_table_write(uint8_t out[EFL_TABLE_SIZE], const uint16_t freq[256]);
/* The table for symbols that occur `counts` times: it, its bytes, its frequencies, and the bits of the symbols. */
int64_t efl_table_best(uint8_t out[EFL_TABLE_SIZE], uint16_t freq[256], double *bits, const uint64_t counts[256]);
/* The cheapest assignment of 32 contexts to at most EFL_MAX_TABLES tables, each for a run of neighbouring ones, and
 * about the bits of its symbols and tables. counts(32,256): how often each symbol occurs in each context. */
double efl_table_groups(uint8_t groups[32], const uint64_t *counts);

#endif
