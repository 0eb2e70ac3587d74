/* denormals.h: how a thread's processor treats numbers below 2^-126. Not here: where that is decided (fit.c).
 *
 * Momentum that fades and Adam's moments reach such numbers after about a thousand steps. A processor computes them
 * many times slower than others, and they change no result that anybody uses. So a net computes with zeros in their
 * place. Codecs and accumulators don't: their bits are contracts between machines.
 */
#ifndef EFL_DENORMALS_H
#define EFL_DENORMALS_H

#include <stdint.h>

typedef uint64_t efl_float_mode;

/* From now on this thread reads and writes denormals as 0. Returns the mode before. On a processor that is neither
 * x86 nor aarch64 nothing changes. */
efl_float_mode efl_flush_denormals(void);
void efl_restore_float_mode(efl_float_mode mode);

#endif
