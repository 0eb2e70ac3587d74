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
    .panel = GEMM_COLS * VL,
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
    .softmax_backward = softmax_backward,
    .pointwise = pointwise,
    .pointwise_backward = pointwise_backward,
    .dropout = dropout,
    .arithmetic = arithmetic,
    .copy_strided = copy_strided,
    .sum = sum,
    .keep_bits = keep_bits,
    .bits_backward = bits_backward,
    .add_limited = add_limited,
    .add_limited_backward = add_limited_backward,
    .moments = moments,
    .moments_backward = moments_backward,
    .scale_rows = scale_rows,
    .mix_rows = mix_rows,
    .layer_norm = layer_norm,
    .layer_norm_backward = layer_norm_backward,
    .sum_squares = sum_squares,
    .all_finite = all_finite,
    .sgd_step = sgd_step,
    .gemm_update = gemm_update,
    .product = product,
    .product_of_channels = product_of_channels,
    .winograd_input = winograd_input,
    .winograd_output = winograd_output,
    .winograd_weights = winograd_weights,
    .winograd_gradient = winograd_gradient,
    .winograd_weights_back = winograd_weights_back,
    .transpose = transpose,
    .maxpool = maxpool,
    .maxpool_backward = maxpool_backward,
    .avgpool = avgpool,
    .avgpool_backward = avgpool_backward,
    .lstm_forward = lstm_forward,
    .lstm_backward = lstm_backward,
    .gru_gates = gru_gates,
    .gru_blend = gru_blend,
    .gru_blend_backward = gru_blend_backward,
    .gru_gates_backward = gru_gates_backward,
    .peak_f32 = peak_f32,
    .add_f32 = add_f32,
    .quantize = quantize,
    .add_symbols = add_symbols,
    .take_symbols = take_symbols,
    .largest_byte = largest_byte,
    .count_symbols = count_symbols,
    .coin_contexts = coin_contexts,
    .coin_quantize = coin_quantize,
    .energy_sums = energy_sums,
    .energy_contexts = energy_contexts,
    .live_contexts = live_contexts,
    .live_add = live_add,
    .live_take = live_take,
    .look_up_contexts = look_up_contexts,
    .gram = gram,
    .weigh_rows = weigh_rows,
    .rans_decode = EFL_RANS_DECODE,
    .rans_encode = EFL_RANS_ENCODE,
};
