#include "raftd/run/duration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool rq_parse_duration(const char *s, uint64_t *ret_ns)
{
    static const struct {
        const char *name;
        double ns;
    } units[] = { { "ns", 1 },   { "us", 1e3 }, { "\xc2\xb5s", 1e3 }, { "\xce\xbcs", 1e3 },
                  { "ms", 1e6 }, { "s", 1e9 },  { "m", 60e9 },        { "h", 3600e9 } };
    double sum = 0;

    if (*s == '+') {
        s++;
    }
    if (strcmp(s, "0") == 0) {
        *ret_ns = 0;
        return true;
    }
    if (*s == '\0') {
        return false;
    }
    while (*s != '\0') {
        size_t digits = strspn(s, "0123456789");
        size_t number = digits;
        if (s[digits] == '.') {
            size_t fraction = strspn(s + digits + 1, "0123456789");
            digits += fraction;
            number += 1 + fraction;
        }
        if (digits == 0 || number > 40) {
            return false;
        }
        double value = strtod(s, NULL);
        s += number;
        size_t unit_bytes = strcspn(s, "0123456789.");
        double unit = 0;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
            if (strlen(units[i].name) == unit_bytes && strncmp(units[i].name, s, unit_bytes) == 0) {
                unit = units[i].ns;
            }
        }
        if (unit == 0) {
            return false;
        }
        sum += value * unit;
        s += unit_bytes;
    }
    if (!(sum < 9.2e18)) { /* Go's durations end there */
        return false;
    }
    *ret_ns = (uint64_t)(sum + 0.5);
    return true;
}

/* value in units of 10^digits, without the zeros at the end of its fraction. */
static void format_fraction(uint64_t value, int digits, const char *unit, char text[RQ_DURATION_TEXT])
{
    uint64_t whole = value;
    for (int i = 0; i < digits; i++) {
        whole /= 10;
    }
    uint64_t scale = 1;
    for (int i = 0; i < digits; i++) {
        scale *= 10;
    }
    uint64_t fraction = value - whole * scale;
    while (digits > 0 && fraction % 10 == 0) {
        fraction /= 10;
        digits--;
    }
    if (digits == 0) {
        (void)snprintf(text, RQ_DURATION_TEXT, "%llu%s", (unsigned long long)whole, unit);
    } else {
        (void)snprintf(text, RQ_DURATION_TEXT, "%llu.%0*llu%s", (unsigned long long)whole, digits,
                       (unsigned long long)fraction, unit);
    }
}

void rq_format_duration(uint64_t ns, char text[RQ_DURATION_TEXT])
{
    const uint64_t second = 1000000000u;
    char rest[RQ_DURATION_TEXT];
    if (ns == 0) {
        (void)snprintf(text, RQ_DURATION_TEXT, "0s");
    } else if (ns < 1000) {
        format_fraction(ns, 0, "ns", text);
    } else if (ns < 1000000) {
        format_fraction(ns, 3, "\xc2\xb5s", text);
    } else if (ns < second) {
        format_fraction(ns, 6, "ms", text);
    } else if (ns < 60 * second) {
        format_fraction(ns, 9, "s", text);
    } else {
        const uint64_t minutes = ns / (60 * second);
        format_fraction(ns % (60 * second), 9, "s", rest);
        if (minutes < 60) {
            (void)snprintf(text, RQ_DURATION_TEXT, "%llum%.15s", (unsigned long long)minutes, rest);
        } else {
            (void)snprintf(text, RQ_DURATION_TEXT, "%lluh%llum%.15s", (unsigned long long)(minutes / 60),
                           (unsigned long long)(minutes % 60), rest);
        }
    }
}
