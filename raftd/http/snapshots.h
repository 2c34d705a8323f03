/* Snapshots: what rqlite calls so is here the log's compaction; pages are never copied.
 *
 *   POST /snapshot[?timeout=]  now; 204 if nothing was committed since the last one
 *   POST /reap                 there is only ever one snapshot, so nothing to reap */
#ifndef RAFTD_HTTP_SNAPSHOTS_H
#define RAFTD_HTTP_SNAPSHOTS_H

#include "raftd/http/admin.h"
#include "raftd/http/server.h"

extern const struct rq_http_route rq_snapshots_routes[]; /* their ctx is a struct rq_admin */
extern const size_t rq_snapshots_route_count;

#endif
