/* Status: the endpoints about this node and its databases.
 *
 *   GET /readyz                  rqlite's text: is there a leader, is this node ready
 *   GET /status[?key=a.b][&pretty]  rqlite's keys as far as they exist here, and the databases
 *   GET /db                      the databases, and the files that are not replicated
 *   DELETE /db?db=NAME           drops one, on all hosts */
#ifndef RAFTD_HTTP_STATUS_H
#define RAFTD_HTTP_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "raftd/db/catalog.h"
#include "raftd/db/driver.h"
#include "raftd/http/server.h"

/* Set before the server is started, but for catalog and driver: NULL until the node is there. */
struct rq_status {
    _Atomic(struct rq_catalog *) catalog;
    _Atomic(struct rq_driver *) driver;
    struct rq_disk *disk;
    const char *dir, *node_id, *version;
    const char *http_addr, *http_adv_addr, *raft_adv_addr;
    uint64_t started_s; /* seconds since 1970 */
};

extern const struct rq_http_route rq_status_routes[]; /* their ctx is a struct rq_status */
extern const size_t rq_status_route_count;

#endif
