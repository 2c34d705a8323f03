/* SQL file: the statements of a text of any size, one after another, with no more of it in memory than the longest one. */
#ifndef RAFTD_HTTP_SQL_FILE_H
#define RAFTD_HTTP_SQL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/err.h"

#define RQ_SQL_STATEMENT_MAX (1000u << 20) /* as SQLite's own limit */

struct rq_sql_file {
    int fd;       /* borrows; read from where it stands */
    char *buffer; /* owns */
    size_t capacity, size;
    size_t begin, at; /* of the statement; as far as it was looked at */
    char inside;      /* what was opened and not closed: a quote, '[', '-' or '*' of a comment; 0: nothing */
    char cut;         /* what stood where the zero byte is now, at `at` */
    bool is_cut, ended;
};

/* piece: to read at once. */
enum rq_err rq_sql_file_init(struct rq_sql_file *f, int fd, size_t piece);
/* The next one, with its semicolon; ends with a zero byte, until the next call.  NOTFOUND: there are no more.  PROTOCOL: a zero byte is in
 * it; TOOBIG; NOMEM; IO. */
enum rq_err rq_sql_file_next(struct rq_sql_file *f, const char **ret_sql, size_t *ret_bytes);
void rq_sql_file_fini(struct rq_sql_file *f);

#endif
