/* bits.c: what relu and clip leave for backward where nothing else keeps y: a bit an element, 1 where dx is dy and 0
 * where it is 0. Each sample begins with a word of its own.
 *
 * TinyTL, Cai et al. 2020, arXiv:2007.11622, which trains biases alone, and sparse updates live by it: a layer whose
 * weight is frozen needs no x, so the activation in front of it would be all that is kept.
 */
#include "bits.h"

enum { WORD = 32 };

int64_t efl_bits_room(int64_t size) {
    return (size + WORD - 1) / WORD;
}

void efl_bits_keep(const efl_op_run *run, float above, float below) {
    const int64_t size = efl_shape_size(&run->shapes->y), room = efl_bits_room(size);
    for (int64_t i = 0; i < run->batch; i++)
        efl_kernels->keep_bits(run->bits + i * room, run->y + i * size, above, below, size);
}

void efl_bits_backward(const efl_op_run *run) {
    const int64_t size = efl_shape_size(&run->shapes->y), room = efl_bits_room(size);
    for (int64_t i = 0; i < run->batch; i++)
        efl_kernels->bits_backward(run->dx[0] + i * size, run->dy + i * size, run->bits + i * room, size);
}
