/* Session: one application connection: its frames in, its answers out.  docs/protocol.md.
 *
 * Frames come one at a time (raftd/net/link.h); answers leave on whatever thread finishes the work.  A session lives until its
 * line is closed and nothing that it waits for is left. */
#ifndef RAFTD_DB_SESSION_H
#define RAFTD_DB_SESSION_H

#include <stdint.h>

#include "raftd/db/admission.h"
#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/net/link.h"

/* So many transactions of more than one frame may be on their way at once; each takes at most RQ_COMMIT_BYTES_MAX of memory.
 * docs/protocol.md#limits */
#define RQ_HALF_SENT_MAX 16u

/* What all sessions share; immutable, but for half_sent. */
struct rq_session_host {
    struct rq_catalog *catalog;
    struct rq_driver *driver;
    struct rq_disk *disk;
    const char *staged_dir;
    uint64_t instance;
    const char *node_id, *version;
    struct rq_admission half_sent; /* transactions of RQ_HALF_SENT_MAX at most */
};

/* Fills in ops->opened, frame and closed, and makes host->half_sent; ctx is the host. */
void rq_session_ops(struct rq_session_host *host, struct rq_link_ops *ret_ops);

#endif
