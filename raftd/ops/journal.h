/* Journal: the process's only log sink.  One logfmt line per event, on stderr.
 *
 *   time=2026-01-31T12:00:00.123Z level=info msg="database created" db=app.db id=7
 *
 * Log an error once, where it is decided.  Any thread. */
#ifndef RAFTD_OPS_JOURNAL_H
#define RAFTD_OPS_JOURNAL_H

#include <stddef.h>

#include "raftd/wire/err.h"

enum rq_level {
    RQ_LEVEL_ERROR, /* needs a human */
    RQ_LEVEL_WARN,  /* handled; the line says how */
    RQ_LEVEL_INFO,  /* changes of state */
    RQ_LEVEL_DEBUG,
};

/* Lines above this level are dropped.  Set before there are threads. */
void rq_journal_level(enum rq_level level);

/* keys_format: further "key=value" pairs, "" for none.  Values that may hold blanks go through rq_quote(). */
void rq_note(enum rq_level level, const char *msg, const char *keys_format, ...) __attribute__((format(printf, 3, 4)));

/* s as a logfmt value: quoted and escaped, cut to the buffer.  Returns out. */
const char *rq_quote(char *out, size_t out_bytes, const char *s);

/* Logs, and ends the process at once: nothing that is still in memory may reach a disk.  The next start recovers. */
void rq_fatal(const char *what, enum rq_err err) __attribute__((noreturn));

#endif
