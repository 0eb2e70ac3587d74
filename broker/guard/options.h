/* options.h: the plugin_opt_ lines of mosquitto.conf. A missing, unknown, repeated or absurd one is an error. */
#ifndef GUARD_OPTIONS_H
#define GUARD_OPTIONS_H

#include "accounts.h"
#include "denied.h"

#define OPTION_ERROR_BYTES 512

struct mosquitto_opt;

typedef struct {
    guard_limits limits;
    guard_rate rates[BUDGETS];
    uint32_t clients;
    char *denied; /* path */
} guard_options;

/* False: `why` (OPTION_ERROR_BYTES,) says which line is wrong. options_close is due either way. */
bool options_read(guard_options *options, const struct mosquitto_opt *given, int count, char *why);
void options_close(guard_options *options);

#endif
