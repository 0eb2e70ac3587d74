/* kernels.c: all kernels for one instruction set. Compiled several times, with -DEFL_ISA=avx2 and the like. */
#include "kernels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "vector.h"

#include "crc32c_hw.c"
#include "elementwise.c"
#ifdef EFL_PROFILE_SMALL
#include "gemm_small.c"
#else
#include "in_order.c"
#include "gemm.c"
#include "gemm_nt.c"
#endif
#include "conv.c"
#include "winograd.c"
#include "pool.c"
#include "recurrent.c"
#include "pointwise.c"
#include "rows.c"
#include "bits.c"
#include "clamp.c"
#include "batch_norm.c"
#include "strided.c"
#include "rans.c"
#include "fixed.c"
#include "symbols.c"
#include "coin.c"
#include "energy.c"
#include "live.c"
#include "gram.c"

#ifdef EFL_PROFILE_SMALL

/* kernels.h has the table. */
#define EFL_EXPORT(name, function) extern __typeof__(function) efl_kernel_##name __attribute__((alias(#function)));
EFL_KERNELS(EFL_EXPORT)

#else

#define EFL_JOIN(a, b) a##b
#define EFL_TABLE(isa) EFL_JOIN(efl_kernels_, isa)
#define EFL_STRING(isa) #isa
#define EFL_NAME(isa) EFL_STRING(isa)
#define EFL_ENTRY(name, function) .name = function,

extern const efl_kernel_table EFL_TABLE(EFL_ISA);

const efl_kernel_table EFL_TABLE(EFL_ISA) = {
#if defined(__ARM_NEON)
    .isa = "neon",
#else
    .isa = EFL_NAME(EFL_ISA),
#endif
    .panel = GEMM_COLS * VL,
    EFL_KERNELS(EFL_ENTRY).crc32c = EFL_CRC32C,
    .rans_decode = EFL_RANS_DECODE,
    .rans_encode = EFL_RANS_ENCODE,
};

#endif
