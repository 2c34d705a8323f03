/* Identity: whose raft directory this is.
 *
 * File raft/node, sealed_text.h with lines of key=value.  Written last when a cluster is founded: without it there is no node here yet. */
#ifndef RAFTD_DB_IDENTITY_H
#define RAFTD_DB_IDENTITY_H

#include <stdint.h>

#include "raftd/wire/err.h"
#include "vfs/disk.h"

#define RQ_DATA_FORMAT 1u
#define RQ_NODE_ID_MAX 255u

struct rq_identity {
    uint64_t cluster, instance; /* random, never 0 */
    char node_id[RQ_NODE_ID_MAX + 1];
    uint32_t format; /* RQ_DATA_FORMAT */
};

enum rq_err rq_identity_write(struct rq_disk *disk, const char *raft_dir, const struct rq_identity *id);
/* NOTFOUND; CORRUPT; VERSION: a newer format, which is in ret_identity->format. */
enum rq_err rq_identity_read(struct rq_disk *disk, const char *raft_dir, struct rq_identity *ret_identity);

uint64_t rq_random_id(void); /* from getrandom, never 0 */

#endif
