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
    for (int64_t i = 0; i < run->batch; i++) {
        for (int64_t word = 0; word < room; word++) {
            const float *y = run->y + i * size + word * WORD;
            const int64_t n = efl_smaller(WORD, size - word * WORD);
            uint32_t bits = 0;
            for (int64_t k = 0; k < n; k++) bits |= (uint32_t)(y[k] > above && y[k] < below) << k;
            run->bits[i * room + word] = bits;
        }
    }
}

void efl_bits_backward(const efl_op_run *run) {
    const int64_t size = efl_shape_size(&run->shapes->y), room = efl_bits_room(size);
    for (int64_t i = 0; i < run->batch; i++) {
        for (int64_t word = 0; word < room; word++) {
            const int64_t at = i * size + word * WORD, n = efl_smaller(WORD, size - word * WORD);
            const uint32_t bits = run->bits[i * room + word];
            for (int64_t k = 0; k < n; k++) run->dx[0][at + k] = bits >> k & 1 ? run->dy[at + k] : 0;
        }
    }
}
