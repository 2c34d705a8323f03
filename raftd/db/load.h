/* Load: a SQLite file becomes the content of a database, on all hosts, as one transaction.
 *
 *   the file --> turn of the database --> staged body of all its pages --> the way of every big transaction (staged.h)
 *
 * Readers see the old content or the new one.  Every page is as in the file but for the first, which gets the next change counter and
 * schema cookie, so that connections notice, and is brought to normal form (raftd/wire/txn.h): so the versions of reading and writing
 * in the file do not matter; a WAL beside it would have to come with it.
 *
 * Threads: one that may wait. */
#ifndef RAFTD_DB_LOAD_H
#define RAFTD_DB_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/db/database.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_LOAD_TEXT_MAX 256u

/* Begins like one. */
bool rq_load_is_database(const uint8_t *data, size_t bytes);

struct rq_load {
    struct rq_disk *disk; /* borrows, as all */
    const char *staged_dir;
    const char *file; /* to be loaded; nobody else has it; may be changed */
    struct rq_database *db;
    const char *path;    /* of db's file */
    unsigned timeout_ms; /* for the turn; what comes then takes as long as it takes */
};

/* OK: committed, and applied here.  CORRUPT: no SQLite database.  BUSY: others did not let go of the turn in time.  UNKNOWN: raftd is
 * about to end.  Others: nothing has happened.  text: why not. */
enum rq_err rq_load_run(const struct rq_load *l, char text[RQ_LOAD_TEXT_MAX]);

#endif
