/* classes.h: the energies of rows and columns as a payload has them (edgefl/codecs/energy.py). */
#ifndef EFL_CODECS_CLASSES_H
#define EFL_CODECS_CLASSES_H

#include <stdint.h>

enum { EFL_CLASSES_NOT_TWO = -16, EFL_CLASSES_CUT_OFF = -17, EFL_CLASSES_STREAM = -18, EFL_CLASSES_MOST = -19 };

/* Reads classes(n) from the number of tables, which is two, the tables, the length of a stream and the stream of one
 * lane that data(size) begins with; kinds(n), 0 or 1, name the table of each. The bytes of all that, or an error above
 * or of tables.h. */
int64_t efl_classes_read(uint8_t *classes, const uint8_t *kinds, int64_t n, const uint8_t *data, int64_t size);
/* groups(32) begin with 0, and rise by 1 at i where bit i of mask is set; bit 0 says nothing. */
void efl_groups_read(uint8_t groups[32], uint32_t mask);

#endif
