/* Stamps: was this log the one that made these replicas?  Asked before the node starts, so that a raft/ that does not belong
 * here, an old backup of it for example, is refused as it is: nothing was written into it, and nothing into the replicas. */
#ifndef RAFTD_DB_STAMPS_H
#define RAFTD_DB_STAMPS_H

#include "raftd/db/catalog.h"
#include "raftd/db/descriptor.h"
#include "raftd/log/log.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

/* Looks at the newest stamp of each file that the catalog, the descriptor or the log knows.  CORRUPT: one names an entry that the log does
 * not have; text says which.  What cannot be told here is left to the end of replay.  ret_newest: the newest entry that any of
 * them holds; it was committed.  fetching: their state was being fetched from another member when this raftd ended, so they may
 * hold what the log does not; it will come. */
enum rq_err rq_stamps_check(struct rq_disk *disk, const char *dir, struct rq_catalog *catalog,
                            const struct rq_descriptor *descriptor, struct rq_log *log, bool fetching,
                            uint64_t *ret_newest, char text[512]);

#endif
