/* Dump: a database as the SQL that makes it again. */
#ifndef RAFTD_OPS_DUMP_H
#define RAFTD_OPS_DUMP_H

#include <sqlite3.h>

#include "raftd/ops/backup.h"

/* Inside a transaction of db.  tables: as in struct rq_backup.  IO: what SQLite says is in sqlite3_errmsg(); else the sink's. */
enum rq_err rq_dump(sqlite3 *db, const char *tables, const struct rq_backup_sink *sink);

#endif
