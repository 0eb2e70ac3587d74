/* main.c: trains the plan of model.h on the examples of examples.h, with the core alone: no Python, no file, no
 * network.
 *
 * The same program runs on a microcontroller and on Linux; board.h is what differs. What it trains is what
 * edgefl.Trainer(plan, batch=EFL_MODEL_BATCH).fit(params, x, y, epochs=EPOCHS, batch_size=EFL_MODEL_BATCH, lr=LR)
 * does.
 */
#include "board.h"
#include "examples.h"
#include "model.h"

#include <stdlib.h>
#include <string.h>

#ifndef EPOCHS
#define EPOCHS 20
#endif
#ifndef LR
#define LR 0.1
#endif

static float delta[EFL_MODEL_NUM_PARAMS], params[EFL_MODEL_NUM_PARAMS];

static void say_whole(unsigned long number) {
    char digits[12], *at = &digits[sizeof digits - 1];
    for (*at = '\0'; number > 0 || *at == '\0'; number /= 10) *--at = (char)('0' + number % 10);
    board_say(at);
}

/* With four digits behind the point. A loss may be any number, or none, once a training has diverged. */
static void say_number(const char *before, double number, const char *after) {
    board_say(before);
    if (number >= 0 && number < 400000) {
        const unsigned long parts = (unsigned long)(number * 10000 + 0.5);
        say_whole(parts / 10000);
        board_say(".");
        for (unsigned long unit = 1000; unit > 0; unit /= 10) say_whole(parts / unit % 10);
    } else
        board_say("out of range");
    board_say(after);
}

static void say_bytes(const char *before, size_t number) {
    board_say(before);
    say_whole((unsigned long)number);
    board_say(" bytes\n");
}

/* The float's bits, as 8 hexadecimal digits a line. */
static void say_bits(float number) {
    char line[16] = "param ";
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    for (int i = 0; i < 8; i++) line[6 + i] = "0123456789abcdef"[bits >> (28 - 4 * i) & 15];
    strcpy(line + 14, "\n");
    board_say(line);
}

static int say_loss(efl_net *net, const efl_data *data, const char *when, efl_error *error) {
    double loss, accuracy;
    if (efl_evaluate(net, params, data, &loss, &accuracy, error) != EFL_OK) return error->code;
    board_say(when);
    say_number(": loss ", loss, ", accuracy ");
    say_number("", accuracy, "\n");
    return EFL_OK;
}

static int train(efl_net *net, efl_error *error) {
    const efl_data data = {.x = example_x, .labels = example_y, .n = EXAMPLES};
    const efl_fit_options options = {.epochs = EPOCHS, .batch_size = EFL_MODEL_BATCH, .lr = LR};
    efl_fit_result result;
    memcpy(params, efl_model_params, sizeof params);
    if (say_loss(net, &data, "before", error) != EFL_OK) return error->code;
    if (efl_fit(net, params, &data, &options, delta, &result, error) != EFL_OK) return error->code;
    for (int i = 0; i < EFL_MODEL_NUM_PARAMS; i++) params[i] += delta[i];
    return say_loss(net, &data, "after", error);
}

int main(void) {
    efl_error error;
    efl_net *net;
    if (efl_isa_select(NULL, &error) != EFL_OK ||
        efl_net_new(&net, &efl_model_plan, EFL_MODEL_BATCH, 0, &error) != EFL_OK || train(net, &error) != EFL_OK) {
        board_say(error.message);
        board_say("\n");
        return 1;
    }
    say_bytes("params ", sizeof params);
    say_bytes("arena ", (size_t)efl_net_arena_bytes(net));
    say_bytes("stack ", board_stack_bytes());
    say_bytes("heap ", board_heap_bytes());
#ifdef SAY_PARAMS
    for (int i = 0; i < EFL_MODEL_NUM_PARAMS; i++) say_bits(params[i]);
#else
    (void)say_bits;
#endif
    efl_net_free(net);
    return 0;
}
