/* raftd in a test: log, node, catalog and databases of one host, wired and started as raftd/main.c does, on any disk; without
 * threads, sockets, SQL and adoption.
 *
 * A strand runs when rq_pool_run_one() is called.  The journal is this rig's: what raftd notes is printed when RQ_RIG_VERBOSE is
 * set, and rq_fatal(), the end of the process, is the end of rig_run().  A raftd that has ended is not torn down, as it would
 * not be in life: its memory stays, so who lets many of them die does it in a process of its own. */
#ifndef TESTS_SUPPORT_RAFTD_RIG_H
#define TESTS_SUPPORT_RAFTD_RIG_H

#include <setjmp.h>

#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/log/log.h"
#include "raftd/run/strand.h"
#include "vfs/disk.h"

#define RIG_DIR        "/data"
#define RIG_RAFT_DIR   RIG_DIR "/raft"
#define RIG_STAGED_DIR RIG_RAFT_DIR "/staged"
#define RIG_TRASH_DIR  RIG_RAFT_DIR "/trash"
#define RIG_HASHES_DIR RIG_RAFT_DIR "/hashes"

struct rig {
    struct rq_disk *disk; /* holds RIG_DIR; borrows */
    const char *name;     /* in what it notes; NULL: the only one */
    uint64_t segment_bytes, cache_bytes;
    uint64_t shuffle; /* in which order strands run */
    uint64_t boot;    /* of the machine; whoever makes it lose power counts */
    struct rq_pool *pool;
    struct rq_log *log;
    struct rq_driver *driver;
    struct rq_catalog *catalog;
    bool up;
    bool refused;      /* it did not start, and said why; else it ended */
    enum rq_err error; /* of a refusal or an end */
    char why[600];
    jmp_buf end;
};

/* Starts it.  False: refused or ended. */
bool rig_start(struct rig *r);

/* Runs work as a part of raftd.  False: it ended, and is not up any more.  From inside also for another one. */
bool rig_run(struct rig *r, void (*work)(void *ctx), void *ctx);

void rig_settle(struct rig *r); /* everything that is ready; within rig_run */

#endif
