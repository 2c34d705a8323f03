/* Survivor: may this node go on alone, when a majority is lost for good (recovery.h)?  Asked before anything is written, so that another
 * one may still be chosen, or what is missing be brought.
 *
 * Its whole log counts as committed then, and whatever that leads to has to be here: an entry may have been acknowledged, though this
 * node was still waiting for the staged body that the lost ones had. */
#ifndef RAFTD_CLUSTER_SURVIVOR_H
#define RAFTD_CLUSTER_SURVIVOR_H

#include "raftd/db/descriptor.h"
#include "raftd/log/log.h"
#include "raftd/wire/err.h"
#include "vfs/disk.h"

struct rq_survivor {
    struct rq_disk *disk; /* borrows, as all */
    const char *dir, *staged_dir;
    struct rq_log *log;
    const struct rq_descriptor *descriptor;
    uint64_t newest_stamp; /* stamps.h */
};

/* CORRUPT: no; text says what is missing, and how it may be mended.  NOMEM, IO. */
enum rq_err rq_survivor_check(const struct rq_survivor *s, char text[512]);

#endif
