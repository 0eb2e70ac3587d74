/* error.c: the one place that formats a message. The small profile has another, error_small.c. */
#include "efl.h"

#ifndef EFL_PROFILE_SMALL
#include <stdarg.h>
#include <stdio.h>

int efl_fail(efl_error *error, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    error->code = code;
    return code;
}
#endif
