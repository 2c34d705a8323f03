#include "raftd/ops/journal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES_MAX 2048

static enum rq_level level_max = RQ_LEVEL_INFO;

void rq_journal_level(enum rq_level level)
{
    level_max = level;
}

const char *rq_quote(char *out, size_t out_bytes, const char *s)
{
    size_t n = 0;
    out[n++] = '"';
    for (; *s != '\0' && n + 4 < out_bytes; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            out[n++] = '\\';
        }
        out[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}

/* One write() per line, so that lines of several threads never mix. */
static void put_line(enum rq_level level, const char *msg, const char *keys)
{
    static const char *const names[] = { "error", "warn", "info", "debug" };
    struct timespec now;
    struct tm tm;
    char stamp[32], quoted[512], line[LINE_BYTES_MAX];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(line, sizeof line - 1, "time=%s.%03ldZ level=%s msg=%s%s%s", stamp, now.tv_nsec / 1000000,
                     names[level], rq_quote(quoted, sizeof quoted, msg), keys[0] != '\0' ? " " : "", keys);
    if (n < 0) {
        return;
    }
    size_t bytes = (size_t)n < sizeof line - 1 ? (size_t)n : sizeof line - 2;
    line[bytes++] = '\n';
    (void)!write(STDERR_FILENO, line, bytes); /* there is no other place to complain */
}

void rq_note(enum rq_level level, const char *msg, const char *keys_format, ...)
{
    if (level > level_max) {
        return;
    }
    char keys[LINE_BYTES_MAX / 2];
    va_list args;
    va_start(args, keys_format);
    (void)vsnprintf(keys, sizeof keys, keys_format, args); /* a longer line is cut */
    va_end(args);
    put_line(level, msg, keys);
}

void rq_fatal(const char *what, enum rq_err err)
{
    char text[256];
    rq_note(RQ_LEVEL_ERROR, what, "err=%s text=%s", rq_err_name(err), rq_quote(text, sizeof text, rq_err_text(err)));
    _exit(1);
}
