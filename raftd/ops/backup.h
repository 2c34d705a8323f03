/* Backup: a copy of one replica as of one commit, in pieces, as an ordinary SQLite file or as SQL.
 *
 * It is read by a connection of our own through the VFS "rqvfs" (rq_executor_register()), so it is what applications see: no stamp, no mark that makes stock
 * tools refuse to write, journal mode DELETE.  The snapshot is held until the last piece is taken; who writes does not notice,
 * but the WAL is not reset meanwhile.  Memory is bounded, whatever the size of the database. */
#ifndef RAFTD_OPS_BACKUP_H
#define RAFTD_OPS_BACKUP_H

#include <stdbool.h>
#include <stddef.h>

#include "raftd/wire/err.h"

#define RQ_BACKUP_TEXT_MAX 512u

struct rq_backup_sink {
    void *ctx;
    enum rq_err (*put)(void *ctx, const void *data, size_t bytes); /* any error ends the backup */
};

struct rq_backup {
    const char *path;   /* of the database file */
    bool sql;           /* text, else the file */
    const char *tables; /* of SQL: these alone, separated by commas; NULL or "": all */
    bool vacuum;        /* of a file: compacted, by way of a file in scratch_dir */
    bool compress;      /* gzip */
    const char *scratch_dir;
};

/* text: why not.  After the first piece an error means that the copy is not whole. */
enum rq_err rq_backup_run(const struct rq_backup *b, const struct rq_backup_sink *sink, char text[RQ_BACKUP_TEXT_MAX]);

#endif
