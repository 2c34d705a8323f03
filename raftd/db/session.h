/* Session: one application connection: its frames in, its answers out.  docs/protocol.md.
 *
 * Frames come one at a time (raftd/net/link.h); answers leave on whatever thread finishes the work.  A session lives until its
 * line is closed and nothing that it waits for is left. */
#ifndef RAFTD_DB_SESSION_H
#define RAFTD_DB_SESSION_H

#include <stdint.h>

#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/net/link.h"

/* What all sessions share; immutable. */
struct rq_session_host {
    struct rq_catalog *catalog;
    struct rq_driver *driver;
    struct rq_disk *disk;
    const char *staged_dir;
    uint64_t instance;
    const char *node_id, *version;
};

/* Fills in ops->opened, frame and closed; ctx is the host. */
void rq_session_ops(struct rq_session_host *host, struct rq_link_ops *ret_ops);

#endif
