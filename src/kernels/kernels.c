/* kernels.c: all kernels for one instruction set. Compiled several times, with -DEFL_ISA=avx2 and the like. */
#include "kernels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "vector.h"

#include "crc32c_hw.c"
#include "elementwise.c"
#include "gemm.c"
#include "gemm_nt.c"

#define EFL_JOIN(a, b) a##b
#define EFL_TABLE(isa) EFL_JOIN(efl_kernels_, isa)
#define EFL_STRING(isa) #isa
#define EFL_NAME(isa) EFL_STRING(isa)

extern const efl_kernel_table EFL_TABLE(EFL_ISA);

const efl_kernel_table EFL_TABLE(EFL_ISA) = {
#if defined(__ARM_NEON)
    .isa = "neon",
#else
    .isa = EFL_NAME(EFL_ISA),
#endif
    .crc32c = EFL_CRC32C,
    .gemm = gemm,
    .gemm_nt = gemm_nt,
    .add_rows = add_rows,
    .add = add,
    .relu = relu_forward,
    .tanh = tanh_forward,
    .sigmoid = sigmoid_forward,
    .relu_backward = relu_backward,
    .tanh_backward = tanh_backward,
    .sigmoid_backward = sigmoid_backward,
    .softmax = softmax,
    .sum_squares = sum_squares,
    .sgd_step = sgd_step,
    .gemm_update = gemm_update,
};
