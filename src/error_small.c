/* error_small.c: error.c's function in the small profile: the conversions that messages have, %s %d %lld %g with a
 * precision or not, without a C library's printf, which would be a third of the core. Not here: widths, flags.
 */
#include "efl.h"

#ifdef EFL_PROFILE_SMALL
#include <stdarg.h>
#include <string.h>

typedef struct {
    char *next, *end; /* of what may be written; the byte at `end` is for the terminator */
} text;

static void put(text *to, char c) {
    if (to->next < to->end) *to->next++ = c;
}

static void put_string(text *to, const char *s, int most) {
    for (; *s != '\0' && most > 0; most--) put(to, *s++);
}

/* At least `least` digits. */
static void put_digits(text *to, uint64_t number, int least) {
    char digits[20];
    int n = 0;
    for (; number > 0 || n < least; number /= 10) digits[n++] = (char)('0' + number % 10);
    while (n > 0) put(to, digits[--n]);
}

static void put_integer(text *to, int64_t number) {
    if (number < 0) put(to, '-');
    put_digits(to, number < 0 ? -(uint64_t)number : (uint64_t)number, 1);
}

/* As 1.500000e-07 */
static void put_power(text *to, double size) {
    int exponent = 0;
    for (; size < 1; size *= 10) exponent++;
    uint64_t millionths = (uint64_t)(size * 1e6 + 0.5);
    if (millionths == 10000000) millionths = 1000000, exponent--;
    put_digits(to, millionths / 1000000, 1);
    put(to, '.');
    put_digits(to, millionths % 1000000, 6);
    put_string(to, "e-", 2);
    put_digits(to, (uint64_t)exponent, 2);
}

/* Six digits behind the point are enough to see that a label is none. */
static void put_number(text *to, double number) {
    const double size = number < 0 ? -number : number;
    if (!(size < 1e15)) {
        put_string(to, number > 0 ? "1e15 or more" : number < 0 ? "-1e15 or less" : "nan", 20);
        return;
    }
    if (number < 0) put(to, '-');
    if (size > 0 && size < 1e-4) {
        put_power(to, size);
        return;
    }
    const uint64_t whole = (uint64_t)size, rest = (uint64_t)((size - (double)whole) * 1e6);
    put_digits(to, whole, 1);
    if (rest == 0) return;
    put(to, '.');
    put_digits(to, rest, 6);
}

/* The precision at *format, behind which that is moved. */
static int read_precision(const char **format) {
    int precision = 0;
    if (**format != '.') return INT16_MAX;
    for (++*format; **format >= '0' && **format <= '9'; ++*format) precision = 10 * precision + (**format - '0');
    return precision;
}

int efl_fail(efl_error *error, int code, const char *format, ...) {
    text to = {error->message, error->message + sizeof error->message - 1};
    va_list arguments;
    va_start(arguments, format);
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(&to, *format);
            continue;
        }
        format++;
        const int precision = read_precision(&format);
        const int is_long = strncmp(format, "ll", 2) == 0;
        if (is_long) format += 2;
        switch (*format) {
        case 's': put_string(&to, va_arg(arguments, const char *), precision); break;
        case 'd': put_integer(&to, is_long ? va_arg(arguments, long long) : va_arg(arguments, int)); break;
        case 'g': put_number(&to, va_arg(arguments, double)); break;
        default: put(&to, *format);
        }
    }
    va_end(arguments);
    *to.next = '\0';
    error->code = code;
    return code;
}
#endif
