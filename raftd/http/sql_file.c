#include "raftd/http/sql_file.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "raftd/http/sql_text.h"

enum rq_err rq_sql_file_init(struct rq_sql_file *f, int fd, size_t piece)
{
    *f = (struct rq_sql_file){ .fd = fd, .capacity = piece + 1 };
    f->buffer = malloc(f->capacity);
    return f->buffer != NULL ? RQ_OK : RQ_NOMEM;
}

void rq_sql_file_fini(struct rq_sql_file *f)
{
    free(f->buffer);
    f->buffer = NULL;
}

/* Room for more behind what is there, and for a zero byte. */
static enum rq_err make_room(struct rq_sql_file *f)
{
    if (f->begin > 0) {
        memmove(f->buffer, f->buffer + f->begin, f->size - f->begin);
        f->size -= f->begin;
        f->at -= f->begin;
        f->begin = 0;
    }
    if (f->size + 1 < f->capacity) {
        return RQ_OK;
    }
    if (f->capacity > RQ_SQL_STATEMENT_MAX) {
        return RQ_TOOBIG;
    }
    char *larger = realloc(f->buffer, 2 * f->capacity);
    if (larger == NULL) {
        return RQ_NOMEM;
    }
    f->buffer = larger;
    f->capacity *= 2;
    return RQ_OK;
}

static enum rq_err read_more(struct rq_sql_file *f)
{
    ssize_t n;
    enum rq_err err = make_room(f);
    if (err != RQ_OK) {
        return err;
    }
    do {
        n = read(f->fd, f->buffer + f->size, f->capacity - 1 - f->size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return RQ_IO;
    }
    if (memchr(f->buffer + f->size, '\0', (size_t)n) != NULL) {
        return RQ_PROTOCOL;
    }
    f->size += (size_t)n;
    f->ended = n == 0;
    return RQ_OK;
}

/* c is the next character, and `next` the one behind it (0 at the end). */
static char step(char inside, char c, char next)
{
    switch (inside) {
        case 0:
            return c == '\'' || c == '"' || c == '`' || c == '[' ? c
                   : c == '-' && next == '-'                     ? '-'
                   : c == '/' && next == '*'                     ? '*'
                                                                 : 0;
        case '[':
            return c == ']' ? 0 : inside;
        case '-':
            return c == '\n' ? 0 : inside;
        case '*': /* closed by who sees both characters of it */
            return inside;
        default: /* a doubled quote closes and opens again */
            return c == inside ? 0 : inside;
    }
}

/* Up to `at` it is a statement: a zero byte is put there. */
static void cut_off(struct rq_sql_file *f)
{
    f->cut = f->buffer[f->at];
    f->buffer[f->at] = '\0';
    f->is_cut = true;
}

static void mend(struct rq_sql_file *f)
{
    if (f->is_cut) {
        f->buffer[f->at] = f->cut;
        f->is_cut = false;
    }
}

/* A semicolon ends every statement but the body of a trigger, which SQLite itself knows best. */
static bool is_whole(const struct rq_sql_file *f)
{
    const char *sql = rq_sql_skip_blanks(f->buffer + f->begin);
    return (strncasecmp(sql, "CREATE", 6) != 0 && strncasecmp(sql, "EXPLAIN", 7) != 0) || sqlite3_complete(sql) != 0;
}

/* Looks on to the next semicolon outside of everything, and behind it; false: it is not there yet. */
static bool look_on(struct rq_sql_file *f)
{
    while (f->at < f->size) {
        const bool last = f->at + 1 == f->size;
        const char c = f->buffer[f->at], next = last ? '\0' : f->buffer[f->at + 1];
        if (last && !f->ended && (c == '-' || c == '/' || c == '*')) {
            return false; /* what it is, the next character says */
        }
        if (f->inside == '*' && c == '*' && next == '/') {
            f->inside = 0;
            f->at += 2;
            continue;
        }
        const char before = f->inside;
        f->inside = step(f->inside, c, next);
        f->at += before == 0 && f->inside == '*' ? 2 : 1;
        if (before == 0 && c == ';') {
            return true;
        }
    }
    return false;
}

enum rq_err rq_sql_file_next(struct rq_sql_file *f, const char **ret_sql, size_t *ret_bytes)
{
    mend(f);
    f->begin = f->at;
    for (;;) {
        const bool found = look_on(f);
        if (found || (f->ended && f->at > f->begin)) {
            cut_off(f);
            if (!found || is_whole(f)) {
                *ret_sql = f->buffer + f->begin;
                *ret_bytes = f->at - f->begin;
                return RQ_OK;
            }
            mend(f);
        } else if (f->ended) {
            return RQ_NOTFOUND;
        } else {
            enum rq_err err = read_more(f);
            if (err != RQ_OK) {
                return err;
            }
        }
    }
}
