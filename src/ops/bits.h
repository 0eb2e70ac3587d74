/* bits.h: bits in place of y, for ops with EFL_BITS: see bits.c. */
#ifndef EFL_BITS_H
#define EFL_BITS_H

#include "pieces.h"
#include "window.h"

/* Words of a sample of `size` elements. */
int64_t efl_bits_room(int64_t size);
/* In a training's forward: 1 where above < y < below. */
void efl_bits_keep(const efl_op_run *run, float above, float below);
/* dx = dy where the bit is 1, else 0; dx may be dy. */
void efl_bits_backward(const efl_op_run *run);

#endif
