/* conv.c: y(OH, OW, O) = windows of x(H, W, C) times W(KH, KW, C / groups, O) + b(O), correlation as in ONNX.
 * Params: W, and b or not. Ints: stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right, dil_h, dil_w, groups.
 */
#include "convolution.h"

static efl_convolution shaped(const efl_op_shapes *s) {
    const efl_shape *x = &s->x[0], *k = &s->w[0];
    return (efl_convolution){
        .window = {.x = {x->dim[0], x->dim[1], x->dim[2]}, .y = {0, 0, k->dim[3]}, .kernel = {k->dim[0], k->dim[1]}},
        .groups = s->node->ints[8]};
}

static int infer(efl_op_shapes *s, efl_error *error) {
    const efl_shape *x = &s->x[0], *k = &s->w[0], *b = &s->w[1];
    const int64_t groups = s->node->ints[8];
    if (x->ndim != 3 || k->ndim != 4)
        return efl_fail(error, EFL_MODEL, "needs an input (H, W, C) and a weight of 4 axes");
    if (groups < 1 || x->dim[2] % groups != 0 || k->dim[3] % groups != 0 || k->dim[2] != x->dim[2] / groups)
        return efl_fail(error, EFL_MODEL, "needs a weight (KH, KW, C / groups, O), groups dividing C and O");
    if (s->node->num_params == 2 && (b->ndim != 1 || b->dim[0] != k->dim[3]))
        return efl_fail(error, EFL_MODEL, "needs a bias (O)");
    efl_convolution c = shaped(s);
    if (efl_window_read(&c.window, s->node->ints, 1, error) != EFL_OK) return error->code;
    s->y = (efl_shape){.ndim = 3, .dim = {c.window.y[0], c.window.y[1], c.window.y[2]}};
    s->flops = 2 * efl_shape_size(&s->y) * k->dim[0] * k->dim[1] * k->dim[2];
    if (!efl_convolution_room(s, &c)) return efl_fail(error, EFL_MODEL, "has an output too large with its padding");
    return EFL_OK;
}

static efl_convolution geometry(const efl_op_run *run) {
    efl_convolution c = shaped(run->shapes);
    efl_error error;
    efl_window_read(&c.window, run->shapes->node->ints, 1, &error);
    return c;
}

static void forward(const efl_op_run *run) {
    const efl_convolution c = geometry(run);
    efl_convolution_output(run, &c, run->y, run->x[0], run->w[0], run->w[1]);
}

static void backward(const efl_op_run *run) {
    const efl_convolution c = geometry(run);
    const int64_t *y = c.window.y;
    if (run->dx[0] != NULL) efl_convolution_input(run, &c, run->dx[0], run->dy, run->w[0], NULL);
    efl_convolution_gradients(
        run, &c,
        &(efl_convolution_params){run->dw[0], run->x[0], run->dy, run->dw[1], run->dy, run->batch * y[0] * y[1], y[2]});
}

const efl_op efl_op_conv = {
    .name = "conv",
    .flags = EFL_READS_X | EFL_X_FOR_W,
    .min_inputs = 1,
    .max_inputs = 1,
    .min_params = 1,
    .max_params = 2,
    .num_ints = 9,
    .infer = infer,
    .forward = forward,
    .backward = backward,
};
