/* SQL shape: what the columns of a statement are called and how their values are shown, ready as pieces of JSON.
 *
 * Made once per compiled statement, and again when SQLite has compiled it anew (the schema is another one) or other names are
 * asked for. */
#ifndef RAFTD_HTTP_SQL_SHAPE_H
#define RAFTD_HTTP_SQL_SHAPE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"

enum rq_column_kind { RQ_COLUMN_PLAIN, RQ_COLUMN_BOOLEAN, RQ_COLUMN_TIME };

struct rq_sql_column {
    uint32_t name_at, name_bytes; /* in pieces, quoted */
    uint32_t type_at, type_bytes; /* likewise: the declared type in small letters */
    enum rq_column_kind kind;
    bool declared; /* has a declared type; else the first row's value tells it */
    bool is_text;  /* blobs in it are shown as text */

    const char *seen; /* the user's: of a column without a declared type, what the first row tells */
};

struct rq_sql_shape {
    struct rq_sql_column *columns; /* owns, as all */
    struct rq_bytes pieces;
    uint32_t *order; /* columns by the bytes of their names; of those with the same name the last one */
    uint32_t count, order_count;
    int compiled; /* how often SQLite had compiled it again when this was made */
    bool known, qualified;
};

void rq_sql_shape_init(struct rq_sql_shape *shape);
void rq_sql_shape_fini(struct rq_sql_shape *shape);
/* Makes it, or finds that it holds still.  After the first step, which may compile.  name: what the one column is called; NULL: as SQLite
 * says. */
enum rq_err rq_sql_shape_of(struct rq_sql_shape *shape, sqlite3_stmt *stmt, bool qualified, const char *name);

#endif
