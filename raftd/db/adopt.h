/* Adopt: the SQLite files that are in the data directory when a cluster is founded become its databases.
 *
 * First each is brought to rest by SQLite itself: a hot journal or a WAL is recovered and its journal mode becomes DELETE, so
 * that the file alone is the database.  A replica of a former cluster (-refound) is brought to rest by our own recovery.  Only then
 * entries name them; the stamp is set when its entry is committed (database.c).  A kill in between is made good by the next
 * start: nothing here changes what a file says. */
#ifndef RAFTD_DB_ADOPT_H
#define RAFTD_DB_ADOPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/err.h"
#include "raftd/wire/msg.h"
#include "vfs/disk.h"

struct rq_adoptee {
    char name[RQ_DB_NAME_MAX + 1];
    uint32_t page_size, page_count;
    uint64_t version;
};

struct rq_adoption {
    struct rq_adoptee *list; /* owns */
    size_t count;
    struct rq_bytes problems; /* a line for each file that stands in the way */
};

/* Brings every SQLite file in dir to rest.  replicas: files that bear a stamp are taken too; else they stand in the way.
 * FOREIGN when any file does: nothing may be founded. */
enum rq_err rq_adopt_survey(struct rq_disk *disk, const char *dir, bool replicas, struct rq_adoption *ret_adoption);
void rq_adoption_fini(struct rq_adoption *a);

#endif
