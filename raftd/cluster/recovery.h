/* Recovery: raft/peers.json, by which an operator tells the nodes that are left that a majority is lost for good.  rqlite's format and
 * its checks: [{"id": "1", "address": "host:4002", "non_voter": false}, ...].
 *
 * The first voter in it goes on, alone, with what it has.  (In rqlite each node of the list goes on with its own log, whether or not
 * they hold the same.)  The others come back with empty directories, as after the loss of a disk. */
#ifndef RAFTD_CLUSTER_RECOVERY_H
#define RAFTD_CLUSTER_RECOVERY_H

#include "raftd/node/member.h"
#include "raftd/wire/err.h"
#include "raftd/wire/msg.h"
#include "vfs/disk.h"

struct rq_recovery {
    char survivor[RQ_MEMBER_TEXT_MAX + 1]; /* node id */
    char address[RQ_MEMBER_TEXT_MAX + 1];
};

/* NOTFOUND: no such file.  MISUSE: text says what is wrong with it. */
enum rq_err rq_recovery_read(struct rq_disk *disk, const char *raft_dir, struct rq_recovery *ret_recovery,
                             char text[RQ_TEXT_MAX + 1]);
/* So that no later start does it again: the file is peers.info then. */
enum rq_err rq_recovery_done(struct rq_disk *disk, const char *raft_dir);
/* One was done here, at an earlier start. */
bool rq_recovery_was_done(struct rq_disk *disk, const char *raft_dir);

#endif
