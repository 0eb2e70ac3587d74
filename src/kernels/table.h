/* table.h: every kernel, and the function of kernels.c that is it. Included by kernels.h. Not here: crc32c, rans_decode
 * and rans_encode, which only some instruction sets have.
 */
#ifndef EFL_KERNEL_TABLE_H
#define EFL_KERNEL_TABLE_H

/* clang-format off */
#define EFL_KERNELS(k) \
    k(gemm, gemm) k(gemm_nt, gemm_nt) k(gemm_update, gemm_update) \
    k(add_rows, add_rows) k(add, add) \
    k(relu, relu_forward) k(tanh, tanh_forward) k(sigmoid, sigmoid_forward) \
    k(relu_backward, relu_backward) k(tanh_backward, tanh_backward) k(sigmoid_backward, sigmoid_backward) \
    k(softmax, softmax) k(softmax_backward, softmax_backward) \
    k(pointwise, pointwise) k(pointwise_backward, pointwise_backward) \
    k(dropout, dropout) \
    k(arithmetic, arithmetic) k(copy_strided, copy_strided) k(sum, sum) \
    k(keep_bits, keep_bits) k(bits_backward, bits_backward) \
    k(add_limited, add_limited) k(add_limited_backward, add_limited_backward) \
    k(moments, moments) k(moments_backward, moments_backward) k(scale_rows, scale_rows) k(mix_rows, mix_rows) \
    k(layer_norm, layer_norm) k(layer_norm_backward, layer_norm_backward) \
    k(sum_squares, sum_squares) k(all_finite, all_finite) k(sgd_step, sgd_step) \
    k(product, product) k(product_of_channels, product_of_channels) \
    k(winograd_input, winograd_input) k(winograd_output, winograd_output) k(winograd_weights, winograd_weights) \
    k(winograd_gradient, winograd_gradient) k(winograd_weights_back, winograd_weights_back) \
    k(transpose, transpose) \
    k(maxpool, maxpool) k(maxpool_backward, maxpool_backward) \
    k(avgpool, avgpool) k(avgpool_backward, avgpool_backward) \
    k(lstm_forward, lstm_forward) k(lstm_backward, lstm_backward) \
    k(gru_gates, gru_gates) k(gru_blend, gru_blend) \
    k(gru_blend_backward, gru_blend_backward) k(gru_gates_backward, gru_gates_backward) \
    k(peak_f32, peak_f32) k(add_f32, add_f32) \
    k(quantize, quantize) k(add_symbols, add_symbols) k(take_symbols, take_symbols) k(largest_byte, largest_byte) \
    k(count_symbols, count_symbols) k(coin_contexts, coin_contexts) k(coin_quantize, coin_quantize) \
    k(energy_sums, energy_sums) k(energy_contexts, energy_contexts) \
    k(live_contexts, live_contexts) k(live_add, live_add) k(live_take, live_take) \
    k(look_up_contexts, look_up_contexts) \
    k(gram, gram) k(weigh_rows, weigh_rows)
/* clang-format on */

#endif
