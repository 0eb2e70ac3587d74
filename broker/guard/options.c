#include "options.h"

#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each number: its key, its bounds, and its value, which is 0 until it is given. */
typedef struct {
    const char *key;
    uint32_t least, most, value;
} number;

enum {
    PART_BYTES,
    STATUS_BYTES,
    MESSAGES_PER_S,
    MESSAGES_AT_ONCE,
    STATUSES_PER_S,
    STATUSES_AT_ONCE,
    BYTES_PER_S,
    BYTES_AT_ONCE,
    SUBSCRIPTIONS,
    ROUNDS_PER_MINUTE,
    CLIENTS,
    NUMBERS
};

static const number NUMBER_TABLE[NUMBERS] = {
    [PART_BYTES] = {"part_bytes", 304, 1u << 28, 0},
    [STATUS_BYTES] = {"status_bytes", 1024, 1u << 20, 0},
    [MESSAGES_PER_S] = {"messages_per_s", 1, 1000000, 0},
    [MESSAGES_AT_ONCE] = {"messages_at_once", 10, 100000000, 0},
    [STATUSES_PER_S] = {"statuses_per_s", 1, 1000000, 0},
    [STATUSES_AT_ONCE] = {"statuses_at_once", 10, 100000000, 0},
    [BYTES_PER_S] = {"bytes_per_s", 1, UINT32_MAX, 0},
    [BYTES_AT_ONCE] = {"bytes_at_once", 1024, UINT32_MAX, 0},
    [SUBSCRIPTIONS] = {"subscriptions", 10, 100000, 0},
    [ROUNDS_PER_MINUTE] = {"rounds_per_minute", 1, 1000000, 0},
    [CLIENTS] = {"clients", 1, 10000000, 0},
};

static bool wrong(char *why, const char *key, const char *what) {
    snprintf(why, OPTION_ERROR_BYTES, "plugin_opt_%s: %s", key, what);
    return false;
}

/* Digits only, within the number's bounds. */
static bool read_number(number *into, const char *text, char *why) {
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!*text || strspn(text, "0123456789") != strlen(text) || errno || value < into->least || value > into->most) {
        snprintf(why, OPTION_ERROR_BYTES, "plugin_opt_%s: must be a whole number from %u to %u", into->key,
                 (unsigned)into->least, (unsigned)into->most);
        return false;
    }
    into->value = (uint32_t)value;
    return true;
}

static bool read_base(guard_options *options, const char *text, char *why) {
    size_t bytes = strlen(text);
    if (bytes == 0 || bytes > BASE_MAX_BYTES || strpbrk(text, "+#$") || !strchr(text, '/')) {
        return wrong(why, "base", "must be the topics' root and the federation's name, as in edgefl/2/my-fleet");
    }
    memcpy(options->limits.base, text, bytes + 1);
    return true;
}

static bool read_one(guard_options *options, number *numbers, const char *key, const char *text, char *why) {
    if (strcmp(key, "base") == 0) {
        return options->limits.base[0] ? wrong(why, key, "is there twice") : read_base(options, text, why);
    }
    if (strcmp(key, "denied") == 0) {
        if (options->denied) return wrong(why, key, "is there twice");
        options->denied = strdup(text);
        return options->denied ? true : wrong(why, key, "out of memory");
    }
    for (int i = 0; i < NUMBERS; i++) {
        if (strcmp(key, numbers[i].key) != 0) continue;
        return numbers[i].value ? wrong(why, key, "is there twice") : read_number(&numbers[i], text, why);
    }
    return wrong(why, key, "is no option of the guard");
}

static void spread(guard_options *options, const number *n) {
    options->limits.part_bytes = n[PART_BYTES].value;
    options->limits.status_bytes = n[STATUS_BYTES].value;
    options->limits.subscriptions = n[SUBSCRIPTIONS].value;
    options->clients = n[CLIENTS].value;
    options->rates[BUDGET_MESSAGES] = (guard_rate){n[MESSAGES_PER_S].value, n[MESSAGES_AT_ONCE].value};
    options->rates[BUDGET_STATUSES] = (guard_rate){n[STATUSES_PER_S].value, n[STATUSES_AT_ONCE].value};
    options->rates[BUDGET_BYTES_UP] = (guard_rate){n[BYTES_PER_S].value, n[BYTES_AT_ONCE].value};
    options->rates[BUDGET_BYTES_DOWN] = options->rates[BUDGET_BYTES_UP];
    options->rates[BUDGET_ROUNDS] = (guard_rate){n[ROUNDS_PER_MINUTE].value / 60.0, n[ROUNDS_PER_MINUTE].value};
}

bool options_read(guard_options *options, const struct mosquitto_opt *given, int count, char *why) {
    number numbers[NUMBERS];
    memcpy(numbers, NUMBER_TABLE, sizeof numbers);
    for (int i = 0; i < count; i++) {
        if (!read_one(options, numbers, given[i].key, given[i].value, why)) return false;
    }
    if (!options->limits.base[0]) return wrong(why, "base", "is missing");
    if (!options->denied) return wrong(why, "denied", "is missing");
    for (int i = 0; i < NUMBERS; i++) {
        if (!numbers[i].value) return wrong(why, numbers[i].key, "is missing");
    }
    if (numbers[BYTES_AT_ONCE].value < numbers[PART_BYTES].value) {
        return wrong(why, "bytes_at_once", "must be at least part_bytes, or no part would pass");
    }
    spread(options, numbers);
    return true;
}

void options_close(guard_options *options) {
    free(options->denied);
    options->denied = NULL;
}
