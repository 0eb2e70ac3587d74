/* denormals.c: see denormals.h. The functions are in a file of their own, so that no compiler moves arithmetic across
 * their calls. */
#include "denormals.h"

#if defined(__SSE2__)
#define FLUSH 0x8040 /* of MXCSR: results that are denormal (FTZ), and operands (DAZ) */

static efl_float_mode mode_of_thread(void) {
    return __builtin_ia32_stmxcsr();
}

void efl_restore_float_mode(efl_float_mode mode) {
    __builtin_ia32_ldmxcsr((unsigned)mode);
}
#elif defined(__aarch64__)
#define FLUSH (1u << 24) /* of FPCR: FZ, which is both */

static efl_float_mode mode_of_thread(void) {
    efl_float_mode mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}

void efl_restore_float_mode(efl_float_mode mode) {
    __asm__ volatile("msr fpcr, %0" : : "r"(mode) : "memory");
}
#else
#define FLUSH 0

static efl_float_mode mode_of_thread(void) {
    return 0;
}

void efl_restore_float_mode(efl_float_mode mode) {
    (void)mode;
}
#endif

efl_float_mode efl_flush_denormals(void) {
    const efl_float_mode mode = mode_of_thread();
    efl_restore_float_mode(mode | FLUSH);
    return mode;
}
