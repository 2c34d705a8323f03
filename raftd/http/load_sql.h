/* Load of SQL: the statements of a file, run by the database's executor as one transaction, in which they may be as many and as large as
 * they like.  BEGIN, COMMIT and END in it mean nothing, so dumps are what they are meant to be: all or nothing. */
#ifndef RAFTD_HTTP_LOAD_SQL_H
#define RAFTD_HTTP_LOAD_SQL_H

#include <stdint.h>

#include "raftd/http/admin.h"
#include "raftd/wire/err.h"

struct rq_load_sql_result {
    int64_t last_insert_id, rows_affected; /* of the connection, after it */
    char error[512];                       /* of a statement, or the COMMIT: nothing has happened; "": none */
};

/* From where fd stands.  OK: *ret_result says what became of it.  Others as of an executor's request; UNKNOWN: it may be committed
 * later.  Blocks. */
enum rq_err rq_load_sql(struct rq_admin *a, const char *name, int fd, struct rq_load_sql_result *ret_result);

#endif
